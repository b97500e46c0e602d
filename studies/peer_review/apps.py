from django.apps import AppConfig


class PeerReviewConfig(AppConfig):
    name = "studies.peer_review"
