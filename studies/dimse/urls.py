"""Addresses of the network: nodes, rules, transfers, remote archives, the monitor."""

from django.urls import path

from studies.dimse import monitor_views, rule_views, transfer_views, views

urlpatterns = [
    path("transfers/", transfer_views.transfers, name="transfers"),
    path("transfers/<int:pk>/", transfer_views.transfer, name="transfer"),
    path("transfers/<int:pk>/cancel/", transfer_views.cancel_transfer, name="cancel_transfer"),
    path("transfers/<int:pk>/again/", transfer_views.run_transfer_again, name="run_transfer_again"),
    path("network/", monitor_views.network, name="network"),
    path("network/nodes/", views.nodes, name="nodes"),
    path("network/nodes/new/", views.new_node, name="new_node"),
    path("network/nodes/<int:pk>/", views.node, name="node"),
    path("network/nodes/<int:pk>/verify/", views.verify, name="verify_node"),
    path("network/nodes/<int:pk>/delete/", views.delete, name="delete_node"),
    path("network/rules/", rule_views.rules, name="rules"),
    path("network/rules/routing/new/", rule_views.new_routing_rule, name="new_routing_rule"),
    path("network/rules/routing/<int:pk>/", rule_views.routing_rule, name="routing_rule"),
    path("network/rules/routing/<int:pk>/try/", rule_views.try_routing_rule, name="try_routing_rule"),
    path("network/rules/routing/<int:pk>/delete/", rule_views.delete_routing_rule, name="delete_routing_rule"),
    path("network/rules/prefetch/new/", rule_views.new_prefetch_rule, name="new_prefetch_rule"),
    path("network/rules/prefetch/<int:pk>/", rule_views.prefetch_rule, name="prefetch_rule"),
    path("network/rules/prefetch/<int:pk>/delete/", rule_views.delete_prefetch_rule, name="delete_prefetch_rule"),
    path("studies/<uid:study_instance_uid>/send/", transfer_views.send_study, name="send_study"),
    path("remote/", transfer_views.remote_query, name="remote_query"),
    path("remote/retrieve/", transfer_views.remote_retrieve, name="remote_retrieve"),
]
