"""The certificates with which the sites sign their PDFs."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods

from accounts.capabilities import Capability
from studies.access import sites_where
from studies.reports import certificates
from studies.reports.errors import ReportError
from studies.reports.models import SiteCertificate
from studies.reports.requests import may_manage_accounts, principal_of

LARGEST = 1 << 20


@sensitive_post_parameters("password")
@require_http_methods(["GET", "POST"])
@may_manage_accounts
def site_certificates(request: HttpRequest) -> HttpResponse:
    """Show each site's certificate; take in another as PKCS#12."""
    principal = principal_of(request)
    sites = sites_where(principal, Capability.ACCOUNT_MANAGE).filter(is_teaching=False)
    error = ""
    if request.method == "POST":
        chosen = request.POST.get("site", "")
        site = sites.filter(pk=int(chosen)).first() if chosen.isdigit() and len(chosen) < 18 else None
        file = request.FILES.get("file")
        if site is None or file is None:
            error = certificates.UnusableCertificate.text
        else:
            try:
                certificates.upload(
                    site=site,
                    principal=principal,
                    content=file.read(LARGEST),
                    password=request.POST.get("password", ""),
                )
            except ReportError as failure:
                error = failure.text
            else:
                return redirect("site_certificates")
    rows = [{"site": site, "certificates": SiteCertificate.objects.filter(site=site).order_by("-pk")} for site in sites]
    return render(request, "reports/certificates.html", {"rows": rows, "error": error}, status=422 if error else 200)


@require_GET
@may_manage_accounts
def download_certificate(request: HttpRequest, pk: int) -> HttpResponse:
    """Give a certificate with its issuers, to be trusted by those who verify PDFs."""
    sites = sites_where(principal_of(request), Capability.ACCOUNT_MANAGE)
    kept = SiteCertificate.objects.filter(pk=pk, site__in=sites).first()
    if kept is None:
        raise Http404
    response = HttpResponse(kept.certificate + kept.chain, content_type="application/x-pem-file")
    response["Content-Disposition"] = f'attachment; filename="{kept.site.slug}-reports.pem"'
    return response
