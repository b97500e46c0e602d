"""Who: users, sites, memberships, roles and capabilities, sign-in, API tokens."""
