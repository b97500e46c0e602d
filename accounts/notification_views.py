"""The bell in the top bar and a person's notices."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.models import User
from accounts.notifications import mark_read, notifications_of, unread_of

SHOWN = 100


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


@require_GET
@login_required
def notifications(request: HttpRequest) -> HttpResponse:
    """List the person's notices."""
    return render(request, "accounts/notifications.html", {"notices": notifications_of(_user(request))[:SHOWN]})


@require_GET
@login_required
def bell(request: HttpRequest) -> HttpResponse:
    """Give the bell with its count anew."""
    response = render(request, "components/bell.html", {"unread": unread_of(_user(request)).count()})
    response["Cache-Control"] = "no-store"
    return response


@require_POST
@login_required
def read(request: HttpRequest) -> HttpResponse:
    """Mark all as seen."""
    mark_read(user=_user(request))
    return redirect("notifications")


@require_http_methods(["GET", "POST"])
@login_required
def follow(request: HttpRequest, pk: int) -> HttpResponse:
    """Mark a notice as seen and go to what it's about."""
    user = _user(request)
    notice = notifications_of(user).filter(pk=pk).first()
    if notice is None:
        raise Http404
    mark_read(user=user, pk=pk)
    return redirect(notice.url)
