"""Errors in DICOMweb's form: a status and a sentence (PS3.18 §8.5)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.response import HttpResponseBase

from accounts.gates import problem
from portal.bodies import BrokenOff, ClientSilent
from studies.archive.errors import NotRenderable, NotTranscodable, ObjectMissing, OutsidePicture
from studies.models import Study

logger = logging.getLogger("atrium.dicomweb")
View = Callable[..., HttpResponseBase]


class DicomWebError(Exception):
    """A request that can't be answered; ``members`` go into the problem document."""

    def __init__(self, status: int, title: str, *, headers: dict[str, str] | None = None, **members: Any) -> None:
        super().__init__(title)
        self.status, self.title, self.members, self.headers = status, title, members, headers or {}


def not_found() -> DicomWebError:
    """Give the one answer for what isn't there and for what isn't theirs."""
    return DicomWebError(404, "There is no such resource.")


def is_silent(error: UnreadablePostError) -> bool:
    """Say whether a body can't be read because nothing more comes, though the sender is there (RFC 9110 §15.5.9)."""
    return isinstance(error.__cause__, ClientSilent)


def answers_errors(view: View) -> View:
    """Turn a view's errors into problem documents."""

    @wraps(view)
    def answered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except DicomWebError as error:
            response = problem(error.status, error.title, **error.members)
            for name, value in error.headers.items():
                response[name] = value
            return response
        except (Study.DoesNotExist, BrokenOff):
            # What was there a moment ago is gone before any of it was sent.
            return problem(404, "There is no such resource.")
        except OutsidePicture as error:
            return problem(400, str(error))
        except (NotRenderable, NotTranscodable) as error:
            return problem(406, str(error))
        except ObjectMissing as error:
            logger.exception("object missing: %s", error)
            return problem(500, "The archive can't read this object; the administrators have been told.")

    return answered


def warn(request: HttpRequest, response: HttpResponseBase, *texts: str) -> None:
    """Say what wasn't done as asked, in the service's name (PS3.18 §8.4.3); no text, no header."""
    if texts:
        service = request.build_absolute_uri("/dicom-web")
        response["Warning"] = ", ".join(f'299 {service} "{text}"' for text in texts)


def empty(status: int) -> HttpResponse:
    """Give an answer without a body."""
    response = HttpResponse(status=status)
    del response["Content-Type"]
    return response
