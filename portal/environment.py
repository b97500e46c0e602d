"""The one place that reads ``os.environ``: a typed, frozen view of ``ATRIUM_*``."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class InvalidEnvironment(ValueError):
    """An ``ATRIUM_*`` variable has a value that can't be used."""


def _flag(name: str, default: bool) -> bool:
    value = os.environ.get(name, "").strip().lower()
    if not value:
        return default
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"0", "false", "no", "off"}:
        return False
    raise InvalidEnvironment(f"{name} must be 0 or 1, not {value!r}")


def _port(name: str, default: int) -> int:
    value = os.environ.get(name) or str(default)
    if not value.isdigit() or not 0 < int(value) < 65536:
        raise InvalidEnvironment(f"{name} must be a port number, not {value!r}")
    return int(value)


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in os.environ.get(name, "").split(",") if word.strip())


def _origins(name: str) -> tuple[str, ...]:
    origins = tuple(word.rstrip("/") for word in _words(name))
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in {"http", "https"} or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            raise InvalidEnvironment(f"{name} must hold origins like https://viewer.example, not {origin!r}")
    return origins


def _number(name: str, default: int) -> int:
    value = os.environ.get(name) or str(default)
    if not value.isdigit() or int(value) < 1:
        raise InvalidEnvironment(f"{name} must be a number from 1, not {value!r}")
    return int(value)


def kept_secret(path: Path, length: int = 50) -> str:
    """Give the secret kept in ``path``; make it (readable by the owner only) on first use."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    candidate = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(length) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        # link() refuses to overwrite: of several processes that start at once, one secret wins.
        os.link(candidate, path)
    except FileExistsError:
        pass
    finally:
        candidate.unlink()
    return path.read_text().strip()


@dataclass(frozen=True)
class Environment:
    """What the installation is told from outside; see the table in docs/deploy.md."""

    data: Path
    http_host: str
    http_port: int
    public_url: str
    allowed_hosts: tuple[str, ...]
    trust_proxy: bool
    web_workers: int
    web_threads: int
    largest_store: int
    largest_instance: int
    cors_origins: tuple[str, ...]
    http_version: str
    tls_certificate: str
    tls_key: str
    dicom_host: str
    dicom_port: int
    ae_title: str
    dicom_open: bool
    dicom_processes: int
    dicom_associations: int
    dicom_tls_port: int
    dicom_tls_certificate: str
    dicom_tls_key: str
    dicom_tls_ca: str
    dicom_jwt_key: str
    dicom_storage_classes: tuple[str, ...]
    commitment_hash: bool
    workitem_days: int
    database_url: str
    storage_url: str
    cold_storage_url: str
    broker_url: str
    secret_key: str
    debug: bool
    viewer_root: Path
    metrics_open: bool
    email_url: str
    email_from: str
    tsa_url: str
    dictation: bool

    @property
    def is_embedded_database(self) -> bool:
        return self.database_url.startswith("sqlite")


def read_environment() -> Environment:
    """Read ``ATRIUM_*`` once. Raises InvalidEnvironment with a sentence that names the variable."""
    data = Path(os.environ.get("ATRIUM_DATA") or PROJECT_ROOT / "var").resolve()
    http_port = _port("ATRIUM_HTTP_PORT", 8000)
    http_host = os.environ.get("ATRIUM_HTTP_HOST") or "127.0.0.1"
    public_url = os.environ.get("ATRIUM_PUBLIC_URL") or f"http://127.0.0.1:{http_port}"
    hosts = _words("ATRIUM_ALLOWED_HOSTS")
    ae_title = os.environ.get("ATRIUM_AE_TITLE") or "ATRIUM"
    if not 0 < len(ae_title) <= 16:
        raise InvalidEnvironment("ATRIUM_AE_TITLE must have 1 to 16 characters")
    http_version = os.environ.get("ATRIUM_HTTP_VERSION") or "auto"
    if http_version not in {"auto", "1", "2"}:
        raise InvalidEnvironment(f"ATRIUM_HTTP_VERSION must be auto, 1 or 2, not {http_version!r}")
    demo_installed = (data / "demo-password").exists()
    return Environment(
        data=data,
        http_host=http_host,
        http_port=http_port,
        public_url=public_url.rstrip("/"),
        allowed_hosts=tuple(
            hosts or ["127.0.0.1", "localhost", "[::1]", http_host, urlsplit(public_url).hostname or "localhost"]
        ),
        trust_proxy=_flag("ATRIUM_TRUST_PROXY", False),
        web_workers=_number("ATRIUM_WEB_WORKERS", min(4, os.cpu_count() or 1)),
        web_threads=_number("ATRIUM_WEB_THREADS", 32),
        largest_store=_number("ATRIUM_LARGEST_STORE", 64 << 30),
        largest_instance=_number("ATRIUM_LARGEST_INSTANCE", 8 << 30),
        cors_origins=_origins("ATRIUM_CORS_ORIGINS"),
        http_version=http_version,
        tls_certificate=os.environ.get("ATRIUM_TLS_CERTIFICATE", ""),
        tls_key=os.environ.get("ATRIUM_TLS_KEY", ""),
        dicom_host=os.environ.get("ATRIUM_DICOM_HOST") or "0.0.0.0",  # noqa: S104  modalities call from outside
        dicom_port=_port("ATRIUM_DICOM_PORT", 11112),
        ae_title=ae_title,
        dicom_open=_flag("ATRIUM_DICOM_OPEN", demo_installed),
        dicom_processes=_number("ATRIUM_DICOM_PROCESSES", 1),
        dicom_associations=_number("ATRIUM_DICOM_ASSOCIATIONS", 64),
        dicom_tls_port=_port("ATRIUM_DICOM_TLS_PORT", 2762),
        dicom_tls_certificate=os.environ.get("ATRIUM_DICOM_TLS_CERTIFICATE", ""),
        dicom_tls_key=os.environ.get("ATRIUM_DICOM_TLS_KEY", ""),
        dicom_tls_ca=os.environ.get("ATRIUM_DICOM_TLS_CA", ""),
        dicom_jwt_key=os.environ.get("ATRIUM_DICOM_JWT_KEY", ""),
        commitment_hash=_flag("ATRIUM_COMMITMENT_HASH", False),
        workitem_days=_number("ATRIUM_WORKITEM_DAYS", 365),
        dicom_storage_classes=tuple(os.environ.get("ATRIUM_DICOM_STORAGE_CLASSES", "").replace(",", " ").split()),
        database_url=os.environ.get("ATRIUM_DATABASE_URL") or f"sqlite:///{data / 'atrium.sqlite3'}",
        storage_url=os.environ.get("ATRIUM_STORAGE_URL") or f"file://{data / 'objects'}",
        cold_storage_url=os.environ.get("ATRIUM_COLD_STORAGE_URL", ""),
        broker_url=os.environ.get("ATRIUM_BROKER_URL") or "filesystem://",
        secret_key=os.environ.get("ATRIUM_SECRET_KEY") or kept_secret(data / "secret-key"),
        debug=_flag("ATRIUM_DEBUG", False),
        viewer_root=Path(os.environ.get("ATRIUM_VIEWER_ROOT") or PROJECT_ROOT / ".build" / "viewer"),
        metrics_open=_flag("ATRIUM_METRICS_OPEN", False),
        email_url=os.environ.get("ATRIUM_EMAIL_URL") or f"file://{data / 'mail'}",
        email_from=os.environ.get("ATRIUM_EMAIL_FROM") or f"atrium@{urlsplit(public_url).hostname or 'localhost'}",
        tsa_url=os.environ.get("ATRIUM_TSA_URL", ""),
        dictation=_flag("ATRIUM_DICTATION", True),
    )


def email_settings(url: str) -> dict[str, Any]:
    """Turn ``ATRIUM_EMAIL_URL`` into Django's EMAIL settings.

    ``smtp://user:password@host:port`` (STARTTLS unless ``?tls=0``), ``smtps://…``, ``file:///folder``, ``console:``.
    Raises InvalidEnvironment for a scheme that isn't known.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return {
            "EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend",
            "EMAIL_FILE_PATH": unquote(parts.path),
        }
    if parts.scheme == "console":
        return {"EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend"}
    if parts.scheme in {"smtp", "smtps"} and parts.hostname:
        is_tls = parts.scheme == "smtps"
        return {
            "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "EMAIL_HOST": parts.hostname,
            "EMAIL_PORT": parts.port or (465 if is_tls else 587),
            "EMAIL_HOST_USER": unquote(parts.username or ""),
            "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
            "EMAIL_USE_SSL": is_tls,
            "EMAIL_USE_TLS": not is_tls and dict(parse_qsl(parts.query)).get("tls") != "0",
            "EMAIL_TIMEOUT": 20,
        }
    raise InvalidEnvironment("ATRIUM_EMAIL_URL must begin with smtp://, smtps://, file:// or console:")


def object_storage(url: str) -> dict[str, Any]:
    """Turn ``ATRIUM_STORAGE_URL`` or ``ATRIUM_COLD_STORAGE_URL`` into an entry of Django's STORAGES.

    ``file:///folder`` or a bare path; ``s3://bucket/prefix?endpoint_url=…&access_key=…&secret_key=…``.
    Raises InvalidEnvironment for a scheme that isn't known.
    """
    parts = urlsplit(url)
    if parts.scheme in {"", "file"}:
        return {"BACKEND": "portal.storage.DurableFileSystemStorage", "OPTIONS": {"location": unquote(parts.path)}}
    if parts.scheme == "s3":
        options: dict[str, Any] = {
            "bucket_name": parts.netloc,
            "location": parts.path.strip("/"),
            "file_overwrite": True,
            "default_acl": None,
            "addressing_style": "path",
        }
        options.update(parse_qsl(parts.query))
        return {"BACKEND": "portal.storage.RangedS3Storage", "OPTIONS": options}
    raise InvalidEnvironment(f"Storage URLs begin with file:// or s3://; {parts.scheme!r} isn't known")
