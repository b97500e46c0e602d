"""The demo's sites and people; CONTRACT.md names them for programs outside."""

from __future__ import annotations

SITES = {"north": "North General Hospital", "south": "South Coast Clinic"}
# Username: (first name, last name, role, slugs of sites; None is the whole installation).
PEOPLE: dict[str, tuple[str, str, str, tuple[str | None, ...]]] = {
    "radiologist": ("Ingrid", "Solberg", "radiologist", ("north", "south")),
    "resident": ("Tomás", "Ferreira", "resident", ("north",)),
    "technologist": ("Wei", "Zhang", "technologist", ("north",)),
    "referrer": ("Ada", "Okafor", "referrer", ("north",)),
    "southradiologist": ("Jonas", "Brandt", "radiologist", ("south",)),
    "compliance": ("Miriam", "Katz", "compliance", ("north", "south")),
    "admin": ("Priya", "Raman", "administrator", (None,)),
}

# Roles that some hold besides, at the same sites.
MORE_ROLES = {"radiologist": ("lead_radiologist",)}
