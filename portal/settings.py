"""Django's settings, all derived from :mod:`portal.environment`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dj_database_url
from csp.constants import NONE, SELF

from portal.environment import PROJECT_ROOT, email_settings, object_storage, read_environment

ATRIUM = read_environment()
ATRIUM.data.mkdir(parents=True, exist_ok=True)
BASE_DIR: Path = PROJECT_ROOT

SECRET_KEY = ATRIUM.secret_key
DEBUG = ATRIUM.debug
ALLOWED_HOSTS = list(ATRIUM.allowed_hosts)
SECURE = ATRIUM.public_url.startswith("https://")

INSTALLED_APPS = [
    "accounts",
    "portal.audit",
    "studies",
    "studies.ingest",
    "studies.archive",
    "studies.orders",
    "studies.findings",
    "studies.workitems",
    "studies.dicomweb",
    "studies.dimse",
    "studies.worklists",
    "studies.reports",
    "studies.viewer",
    "studies.results",
    "studies.sharing",
    "studies.peer_review",
    "portal",
    "auditlog",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "rest_framework",
    "drf_spectacular",
    "csp",
    "django_htmx",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "django.contrib.staticfiles",
    "django.forms",
]

MIDDLEWARE = [
    "portal.middleware.RequestIdMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "accounts.middleware.BearerTokenMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "accounts.middleware.PrincipalMiddleware",
    "accounts.middleware.SignedOutMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "auditlog.middleware.AuditlogMiddleware",
    "portal.audit.middleware.RefusalMiddleware",
]

if ATRIUM.cors_origins:
    INSTALLED_APPS.append("corsheaders")
    MIDDLEWARE.insert(1, "corsheaders.middleware.CorsMiddleware")
    CORS_ALLOWED_ORIGINS = list(ATRIUM.cors_origins)
    CORS_URLS_REGEX = r"^/(dicom-web(/.*)?|wado)$"
    CORS_ALLOW_CREDENTIALS = True
    CORS_ALLOW_METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"]
    CORS_ALLOW_HEADERS = [
        *("accept", "authorization", "cache-control", "content-type", "if-match", "if-none-match"),
        *("if-range", "range", "x-atrium-site", "x-csrftoken", "x-request-id"),
    ]
    CORS_EXPOSE_HEADERS = [
        *("accept-ranges", "allow", "content-disposition", "content-location", "content-range", "etag", "location"),
        *("retry-after", "warning", "www-authenticate", "x-request-id"),
    ]

ROOT_URLCONF = "portal.urls"
ASGI_APPLICATION = "portal.asgi.application"

# Widgets by our own templates where there is one.
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "portal.context_processors.portal",
            ],
        },
    }
]

_database = dj_database_url.parse(ATRIUM.database_url)
if ATRIUM.is_embedded_database:
    _database["ENGINE"] = "portal.sqlite"
    _database["TEST"] = {"NAME": ":memory:"}
    _database["OPTIONS"] = {
        "timeout": 30,
        "transaction_mode": "IMMEDIATE",
        # FULL: a commit survives loss of power, not only of the process.
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-32000;",
    }
    _database["CONN_MAX_AGE"] = None
else:
    # "timeout" bounds the wait for a free connection, so that a burst gets an error instead of a hang.
    # A query that gathers from helpers waits for PostgreSQL to start them, longer than ours take: all are of few rows.
    _database["OPTIONS"] = {
        "pool": {"min_size": 1, "max_size": 16, "timeout": 20},
        "options": "-c max_parallel_workers_per_gather=0",
    }
    _database["CONN_MAX_AGE"] = 0
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STORAGES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    # Only studies.archive opens these.
    "objects": object_storage(ATRIUM.storage_url),
    "quarantine": {
        "BACKEND": "portal.storage.DurableFileSystemStorage",
        "OPTIONS": {"location": str(ATRIUM.data / "quarantine")},
    },
}
if ATRIUM.cold_storage_url:
    STORAGES["cold"] = object_storage(ATRIUM.cold_storage_url)
STAGING_ROOT = ATRIUM.data / "staging"
# Notes of what is being placed in storage (studies/ingest/leftovers.py).
PLACING_ROOT = ATRIUM.data / "placing"
# Where «make» unpacks Pango for a machine that lacks it and where nobody may install it.
PDF_LIBRARIES = BASE_DIR / ".build" / "libraries"
DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2000

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / ".build" / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
if not (STATIC_ROOT / "staticfiles.json").exists():
    STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    WHITENOISE_USE_FINDERS = True

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.ScryptPasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "account_login"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_ADAPTER = "accounts.adapter.ClosedAccountAdapter"
ACCOUNT_SESSION_REMEMBER = False
ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE = True
ACCOUNT_RATE_LIMITS = {"login_failed": "20/5m/ip,6/5m/key", "reauthenticate": "10/m/user"}
ALLAUTH_TRUSTED_PROXY_COUNT = 1 if ATRIUM.trust_proxy else 0
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = False

SESSION_COOKIE_NAME = "atrium_session"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = SECURE
CSRF_COOKIE_SECURE = SECURE
CSRF_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "portal.views.csrf_failure"
CSRF_TRUSTED_ORIGINS = [ATRIUM.public_url]
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 31536000 if SECURE else 0
X_FRAME_OPTIONS = "SAMEORIGIN"
if ATRIUM.trust_proxy:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:", "blob:"],
        "frame-ancestors": [SELF],
        "form-action": [SELF],
        "object-src": [NONE],
        "base-uri": [SELF],
    }
}

globals().update(email_settings(ATRIUM.email_url))
DEFAULT_FROM_EMAIL = ATRIUM.email_from

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True


def _cache(name: str) -> dict[str, Any]:
    """Give a cache that all processes share. What fills one, in files, puts nothing out of another."""
    if ATRIUM.broker_url.startswith("redis://"):
        backend = "django.core.cache.backends.redis.RedisCache"
        return {"BACKEND": backend, "LOCATION": ATRIUM.broker_url, "KEY_PREFIX": name}
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    return {"BACKEND": backend, "LOCATION": str(ATRIUM.data / name), "OPTIONS": {"MAX_ENTRIES": 5000}}


# Attempts to sign in and one-time codes that were used; what was found damaged while it was sent.
CACHES = {"default": _cache("cache"), "damaged": _cache("cache-damaged")}

CELERY_BROKER_URL = ATRIUM.broker_url
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
# What takes as long as a network or a storage likes has workers of its own.
CELERY_TASK_ROUTES = {
    "studies.dimse.tasks.work_off": {"queue": "network"},
    "studies.archive.tasks.work_off_moves": {"queue": "network"},
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
if ATRIUM.broker_url.startswith("filesystem://"):
    _queue = ATRIUM.data / "queue"
    for _folder in (_queue / "messages", _queue / "control"):
        _folder.mkdir(parents=True, exist_ok=True)
    CELERY_BROKER_TRANSPORT = "portal.file_queue:Transport"
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(_queue / "messages"),
        "data_folder_out": str(_queue / "messages"),
        "control_folder": str(_queue / "control"),
    }
CELERY_BEAT_SCHEDULE_FILENAME = str(ATRIUM.data / "schedule")
CELERY_BEAT_SCHEDULE = {
    "escalate-overdue-cases": {"task": "studies.worklists.tasks.escalate_overdue", "schedule": 60.0},
    "end-forgotten-acquisitions": {"task": "studies.orders.tasks.end_forgotten_acquisitions", "schedule": 600.0},
    "escalate-critical-results": {"task": "studies.reports.tasks.escalate_critical_results", "schedule": 60.0},
    "send-due-emails": {"task": "accounts.tasks.send_due_emails", "schedule": 60.0},
    "run-due-events": {"task": "studies.tasks.deliver_due_events", "schedule": 15.0},
    "remove-objects": {"task": "studies.archive.tasks.remove_objects", "schedule": 60.0, "options": {"expires": 60}},
    "build-metadata": {"task": "studies.archive.tasks.build_metadata", "schedule": 5.0, "options": {"expires": 5}},
    "move-tiers": {"task": "studies.archive.tasks.propose_moves", "schedule": 60.0},
    "count-tiers": {"task": "studies.archive.tasks.count_tiers", "schedule": 3600.0},
    "draw-peer-reviews": {"task": "studies.peer_review.tasks.sample", "schedule": 3600.0},
    "close-viewing": {"task": "portal.audit.tasks.close_viewing", "schedule": 60.0},
    "settle-studies": {"task": "studies.tasks.settle_studies", "schedule": 5.0},
    "work-off-queues": {"task": "studies.dimse.tasks.start_due_queues", "schedule": 10.0},
    "remove-done-workitems": {"task": "studies.workitems.tasks.remove_done", "schedule": 3600.0},
    "forget-old-associations": {"task": "studies.dimse.tasks.forget_old", "schedule": 86400.0},
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.RequestPrincipalAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS = {"TITLE": "Atrium", "VERSION": "0.1.0", "SERVE_INCLUDE_SCHEMA": False}

# pydicom quotes element values in its warnings, which may name a patient.
warnings.filterwarnings("ignore", module="pydicom")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request_id": {"()": "portal.middleware.RequestIdFilter"}},
    "formatters": {
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s",
        }
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["request_id"]},
        "none": {"class": "logging.NullHandler"},
    },
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "atrium": {"level": "INFO"},
        # Its messages, too, quote values; pydicom sets its level itself, so that only the handler can be ours.
        "pydicom": {"handlers": ["none"], "propagate": False},
        "kombu": {"level": "ERROR"},
        "pynetdicom": {"level": "ERROR"},
        "weasyprint": {"level": "ERROR"},
        "fontTools": {"level": "ERROR"},
    },
}
