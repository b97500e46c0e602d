"""Screens for templates, macros and a person's own spellings."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils.text import slugify
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.capabilities import Capability
from accounts.models import Site
from accounts.principals import Principal
from studies.access import sites_where
from studies.reports import mrrt, templates
from studies.reports import spelling as spelling_check
from studies.reports import template_editor as editor
from studies.reports.desk import desk_sections
from studies.reports.errors import ReportError
from studies.reports.models import Macro, ReportTemplate
from studies.reports.outline import InvalidOutline, Outline
from studies.reports.requests import may_manage_templates, may_write_reports, principal_of

OWN, EVERYWHERE = "own", "all"
ROLE_NAMES = [
    ("indication", gettext_lazy("Indication")),
    ("technique", gettext_lazy("Technique")),
    ("comparison", gettext_lazy("Comparison")),
    ("findings", gettext_lazy("Findings")),
    ("impression", gettext_lazy("Impression")),
    ("reason", gettext_lazy("Reason")),
    ("other", gettext_lazy("Something else")),
]
KIND_NAMES = [
    (editor.TEXT, gettext_lazy("Text")),
    (editor.CHOICE, gettext_lazy("One of a list")),
    (editor.MULTI, gettext_lazy("Several of a list")),
    (editor.NUMBER, gettext_lazy("Number")),
    (editor.DATE, gettext_lazy("Date")),
    (editor.CHECKBOX, gettext_lazy("Box to tick")),
]


def _sharing(principal: Principal) -> list[tuple[str, str]]:
    """Give for whom the principal may keep a template or macro."""
    choices = []
    if principal.may(Capability.REPORT_WRITE):
        choices.append((OWN, _("Only me")))
    if principal.sites_with(Capability.REPORT_TEMPLATE_MANAGE) is None:
        choices.append((EVERYWHERE, _("Every site")))
    sites: QuerySet[Site] = sites_where(principal, Capability.REPORT_TEMPLATE_MANAGE)
    return choices + [(str(site.pk), site.name) for site in sites]


def _shared_with(choice: str) -> dict[str, Any]:
    return {"is_own": choice == OWN, "site": Site.objects.get(pk=int(choice)) if choice.isdigit() else None}


class TemplateForm(forms.Form):
    """What a template is called and for which studies it is."""

    name = forms.CharField(max_length=120)
    description = forms.CharField(max_length=500, required=False)
    shared_with = forms.ChoiceField(label=gettext_lazy("For"))
    language = forms.RegexField(r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=16, initial="en")
    modalities = forms.CharField(
        max_length=200, required=False, help_text=gettext_lazy("Comma-separated; empty: any."), label="Modalities"
    )
    body_parts = forms.CharField(
        max_length=500, required=False, help_text=gettext_lazy("Body Part Examined, comma-separated.")
    )
    keywords = forms.CharField(
        max_length=500, required=False, help_text=gettext_lazy("Words of the study's description, comma-separated.")
    )
    procedure_codes = forms.CharField(
        max_length=2000,
        required=False,
        help_text=gettext_lazy(
            "As scheme:value, comma-separated. A template that names nothing in these four is chosen by hand only."
        ),
    )

    def __init__(self, *args: Any, principal: Principal, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["shared_with"].choices = _sharing(principal)  # type: ignore[attr-defined]

    def clean_procedure_codes(self) -> list[dict[str, str]]:
        codes = []
        for word in templates.words(self.cleaned_data["procedure_codes"]):
            scheme, _colon, value = word.partition(":")
            if not value:
                raise forms.ValidationError(_("Write codes as scheme:value."))
            codes.append({"scheme": scheme.strip(), "value": value.strip(), "meaning": ""})
        return codes

    def values(self) -> dict[str, Any]:
        """Give what's to be saved."""
        data = self.cleaned_data
        return {
            "name": data["name"],
            "description": data["description"],
            "language": data["language"],
            "modalities": [m.upper() for m in templates.words(data["modalities"])],
            "body_parts": [b.upper() for b in templates.words(data["body_parts"])],
            "keywords": [k.lower() for k in templates.words(data["keywords"])],
            "procedure_codes": data["procedure_codes"],
            **_shared_with(data["shared_with"]),
        }


@require_GET
@may_manage_templates
def report_templates(request: HttpRequest) -> HttpResponse:
    """List the templates that the person may use or change."""
    principal = principal_of(request)
    rows = [
        {"template": t, "may_manage": templates.may_manage(principal, t), "uses": t.parts.count()}
        for t in templates.templates_of(principal)
    ]
    return render(request, "reports/templates.html", {"rows": rows, "sharing": _sharing(principal)})


def _template(request: HttpRequest, pk: int) -> ReportTemplate:
    template = templates.templates_of(principal_of(request)).filter(pk=pk).first()
    if template is None:
        raise Http404
    return template


@require_http_methods(["GET", "POST"])
@may_manage_templates
def new_template(request: HttpRequest) -> HttpResponse:
    """Make a template, beginning with the plain outline or a copy of another."""
    principal = principal_of(request)
    copied = request.GET.get("copy", "")
    if request.method == "POST":
        return _save(request, TemplateForm(request.POST, principal=principal), None)
    if copied.isdigit() and len(copied) < 18:
        other = _template(request, int(copied))
        form = TemplateForm(principal=principal, initial={**_initial(other), "shared_with": OWN})
        return _form_page(request, form, None, other.content)
    return _form_page(request, TemplateForm(principal=principal), None, templates.plain_content())


@require_http_methods(["GET", "POST"])
@may_manage_templates
def edit_template(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a template; change it, which makes its next version."""
    template = _template(request, pk)
    principal = principal_of(request)
    if request.method == "POST":
        return _save(request, TemplateForm(request.POST, principal=principal), template)
    form = TemplateForm(principal=principal, initial=_initial(template))
    return _form_page(request, form, template, template.content)


@require_POST
@may_manage_templates
def template_editor(request: HttpRequest) -> HttpResponse:
    """Give the editor after one of its buttons was pressed; without one the preview of what it holds. Keeps nothing."""
    tree = editor.read_tree(request.POST)
    action = request.POST.get("action")
    if action is None and request.headers.get("HX-Trigger") == "template-preview":
        return render(request, "reports/_template_preview.html", _preview(tree))
    before, focus = "", ""
    if action == "undo":
        tree = editor.tree_before(request.POST) or tree
    elif action is not None:
        earlier = tree
        tree, focus = editor.changed(tree, action)
        before = json.dumps(earlier) if action.startswith("remove") and tree != earlier else ""
    return render(request, "reports/_template_editor.html", {**_editor(tree), "before": before, "focus": focus})


def _editor(tree: editor.Tree) -> dict[str, Any]:
    return {"sections": editor.editor_sections(tree), "roles": ROLE_NAMES, "kinds": KIND_NAMES, **_preview(tree)}


def _preview(tree: editor.Tree) -> dict[str, Any]:
    try:
        outline = Outline.of(tree)
    except InvalidOutline as error:
        return {"tree_error": str(error)}
    values = outline.defaults()
    return {
        "preview": desk_sections(outline, values),
        "preview_text": outline.section_texts(outline.texts(values)),
    }


def _save(request: HttpRequest, form: TemplateForm, template: ReportTemplate | None) -> HttpResponse:
    tree = editor.read_tree(request.POST)
    if not form.is_valid():
        return _form_page(request, form, template, tree, status=422)
    kept = {"metadata": template.metadata, "coded_content": template.coded_content} if template else {}
    family = template.family if template else None
    try:
        templates.save_template(principal=principal_of(request), family=family, content=tree, **form.values(), **kept)
    except InvalidOutline:
        return _form_page(request, form, template, tree, status=422)
    except ReportError as error:
        form.add_error(None, error.text)
        return _form_page(request, form, template, tree, status=403)
    return redirect("report_templates")


def _form_page(
    request: HttpRequest, form: TemplateForm, template: ReportTemplate | None, tree: editor.Tree, status: int = 200
) -> HttpResponse:
    may_manage = template is None or templates.may_manage(principal_of(request), template)
    context = {"form": form, "template": template, "may_manage": may_manage, **_editor(tree)}
    return render(request, "reports/template.html", context, status=status)


def _initial(template: ReportTemplate) -> dict[str, Any]:
    return {
        "name": template.name,
        "description": template.description,
        "language": template.language,
        "shared_with": OWN if template.owner_id else str(template.site_id) if template.site_id else EVERYWHERE,
        "modalities": ", ".join(template.modalities),
        "body_parts": ", ".join(template.body_parts),
        "keywords": ", ".join(template.keywords),
        "procedure_codes": ", ".join(f"{c.get('scheme')}:{c.get('value')}" for c in template.procedure_codes),
    }


@require_POST
@may_manage_templates
def retire_template(request: HttpRequest, pk: int) -> HttpResponse:
    """Offer a template no more."""
    try:
        templates.retire_template(principal=principal_of(request), template=_template(request, pk))
    except ReportError:
        return HttpResponse(status=403)
    return redirect("report_templates")


@require_GET
@may_manage_templates
def export_template(request: HttpRequest, pk: int) -> HttpResponse:
    """Give a template as an MRRT file, to be kept, not shown."""
    template = _template(request, pk)
    response = HttpResponse(mrrt.write_template(template), content_type="text/html; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{slugify(template.name) or "template"}.html"'
    return response


@require_POST
@may_manage_templates
def import_template(request: HttpRequest) -> HttpResponse:
    """Take an MRRT file in as a template of one's own or, for those who manage them, a shared one."""
    principal = principal_of(request)
    file = request.FILES.get("file")
    choice = request.POST.get("shared_with", OWN)
    error = ""
    if file is None or choice not in dict(_sharing(principal)):
        error = _("Choose a file and for whom it is.")
    else:
        try:
            read = mrrt.read_template(file.read(mrrt.LARGEST + 1))
            imported = templates.save_template(principal=principal, **read.as_template(), **_shared_with(choice))
        except (mrrt.NotATemplate, InvalidOutline) as failure:
            error = str(failure)
        except ReportError as failure:
            error = failure.text
    if error:
        rows = [
            {"template": t, "may_manage": templates.may_manage(principal, t), "uses": t.parts.count()}
            for t in templates.templates_of(principal)
        ]
        context = {"rows": rows, "sharing": _sharing(principal), "error": error}
        return render(request, "reports/templates.html", context, status=422)
    messages.success(request, _("“%(name)s” is imported. See here what it has become.") % {"name": imported.name})
    if read.left_out:
        text = ngettext(
            "%(count)s field lies in no section of the file and was left out.",
            "%(count)s fields lie in no section of the file and were left out.",
            read.left_out,
        )
        messages.warning(request, text % {"count": read.left_out})
    return redirect("report_template", pk=imported.pk)


@require_http_methods(["GET", "POST"])
@may_manage_templates
def macros(request: HttpRequest) -> HttpResponse:
    """Show, make and change macros and one's own spellings."""
    principal = principal_of(request)
    error = ""
    if request.method == "POST":
        choice = request.POST.get("shared_with", OWN)
        try:
            if choice not in dict(_sharing(principal)):
                raise ValueError(choice)
            templates.save_macro(
                principal=principal,
                trigger=request.POST.get("trigger", ""),
                text=request.POST.get("text", ""),
                **_shared_with(choice),
            )
        except ReportError as failure:
            error = failure.text
        except ValueError:
            error = _("A trigger is letters, digits, - and _, without spaces.")
        else:
            return redirect("report_macros")
    rows = [
        {"macro": m, "may_manage": m.owner_id is not None or str(m.site_id or EVERYWHERE) in dict(_sharing(principal))}
        for m in templates.macros_of(principal)
    ]
    user = principal.user
    context = {
        "rows": rows,
        "sharing": _sharing(principal),
        "spellings": user.report_spellings.all() if user is not None else [],
        "words": user.report_words.all() if user is not None else [],
        "error": error,
        "typed": request.POST,
    }
    return render(request, "reports/macros.html", context, status=422 if error else 200)


@require_POST
@may_manage_templates
def delete_macro(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete a macro."""
    macro: Macro | None = templates.macros_of(principal_of(request)).filter(pk=pk).first()
    if macro is None:
        raise Http404
    try:
        templates.delete_macro(principal=principal_of(request), macro=macro)
    except ReportError:
        return HttpResponse(status=403)
    return redirect("report_macros")


@require_POST
@may_manage_templates
def spelling(request: HttpRequest) -> HttpResponse:
    """Remember how a word is written, or forget it."""
    user = principal_of(request).user
    if user is not None:
        templates.save_spelling(user=user, heard=request.POST.get("heard", ""), written=request.POST.get("written", ""))
    return redirect("report_macros")


@require_GET
@may_write_reports
def suggested_words(request: HttpRequest) -> JsonResponse:
    """Give what may be meant by a word that no dictionary has."""
    user = principal_of(request).user
    known = spelling_check.known_words(user) if user is not None else set()
    word, language = request.GET.get("word", ""), request.GET.get("language", "en")
    return JsonResponse({"suggestions": spelling_check.suggestions(word, language, known)})


@require_POST
@may_write_reports
def known_word(request: HttpRequest) -> HttpResponse:
    """Add a word to one's own, or forget it."""
    user, word = principal_of(request).user, request.POST.get("word", "")
    if user is not None and "forget" in request.POST:
        spelling_check.forget_known_word(user=user, word=word)
    elif user is not None:
        try:
            spelling_check.add_known_word(user=user, word=word)
        except ValueError:
            return HttpResponse(status=422)
    return (
        HttpResponse(status=204) if request.headers.get("Accept") == "application/json" else redirect("report_macros")
    )
