"""Orders for programs: ``/api/v1/orders/``."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import api_view
from rest_framework.exceptions import APIException, NotFound, PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.capabilities import Capability
from accounts.gates import principal_of
from accounts.principals import Principal
from studies.access import sites_where
from studies.models import Priority
from studies.orders import selectors, services
from studies.orders.errors import NotAllowed, OrderRefused
from studies.orders.forms import OrderFilterForm
from studies.orders.models import Order
from studies.orders.patients import PatientIdentity
from studies.orders.services import OrderDetails, changeable_details


class Conflict(APIException):
    """409 for what the orders' services refuse."""

    status_code = 409


class OrderSerializer(serializers.ModelSerializer[Order]):
    """An order as it is."""

    site = serializers.CharField(source="site.slug")
    patient_id = serializers.CharField(source="patient.patient_id")
    patient_name = serializers.CharField(source="patient.patient_name")
    description = serializers.CharField(source="requested_procedure_description")
    modality = serializers.SerializerMethodField()
    scheduled_at = serializers.SerializerMethodField()

    class Meta:
        model = Order
        fields = [
            *("id", "site", "accession_number", "study_instance_uid", "requested_procedure_id", "patient_id"),
            *("patient_name", "description", "modality", "scheduled_at", "priority", "status", "indication"),
            *("referring_physician_name", "patient_class", "patient_location", "placer_order_number"),
            *("filler_order_number", "placed_at"),
        ]

    def get_modality(self, order: Order) -> str:
        """Give the first scheduled step's modality."""
        return next((step.modality for step in order.scheduled_steps.all()), "")

    def get_scheduled_at(self, order: Order) -> str:
        """Give the first scheduled step's time."""
        return next((step.scheduled_at.isoformat() for step in order.scheduled_steps.all()), "")


class ChangesSerializer(serializers.Serializer[dict[str, Any]]):
    """What of an order can be changed."""

    description = serializers.CharField(max_length=256)
    modality = serializers.CharField(max_length=16)
    scheduled_at = serializers.DateTimeField()
    priority = serializers.ChoiceField(Priority.choices, required=False)
    indication = serializers.CharField(required=False, allow_blank=True, max_length=10_000)
    referring_physician_name = serializers.CharField(required=False, allow_blank=True, max_length=324)
    patient_class = serializers.ChoiceField(Order.PatientClass.choices, required=False)
    patient_location = serializers.CharField(required=False, allow_blank=True, max_length=64)
    admission_id = serializers.CharField(required=False, allow_blank=True, max_length=64)
    placer_order_number = serializers.CharField(required=False, allow_blank=True, max_length=64)
    filler_order_number = serializers.CharField(required=False, allow_blank=True, max_length=64)
    station_ae_title = serializers.CharField(required=False, allow_blank=True, max_length=16)
    station_name = serializers.CharField(required=False, allow_blank=True, max_length=16)
    performing_physician_name = serializers.CharField(required=False, allow_blank=True, max_length=324)


class NewOrderSerializer(ChangesSerializer):
    """An order to place; patient names are DICOM PN (``Family^Given``)."""

    site = serializers.SlugField(max_length=32)
    patient_id = serializers.CharField(max_length=64)
    issuer_of_patient_id = serializers.CharField(required=False, allow_blank=True, max_length=64)
    patient_name = serializers.CharField(required=False, allow_blank=True, max_length=324)
    patient_birth_date = serializers.DateField(required=False, allow_null=True)
    patient_sex = serializers.ChoiceField(["", "F", "M", "O"], required=False)
    accession_number = serializers.CharField(required=False, allow_blank=True, max_length=16)
    requested_procedure_id = serializers.CharField(required=False, allow_blank=True, max_length=16)
    study_instance_uid = serializers.RegexField(r"^[0-9.]{1,64}$", required=False)


class OrderPageSerializer(serializers.Serializer[dict[str, object]]):
    """A page of orders, at most a hundred."""

    orders = OrderSerializer(many=True)


def _shown(order_id: int) -> dict[str, Any]:
    order = Order.objects.select_related("site", "patient").prefetch_related("scheduled_steps").get(pk=order_id)
    return dict(OrderSerializer(order).data)


def _visible(request: Request, pk: int) -> Order:
    order = selectors.orders_visible_to(principal_of(request._request)).filter(pk=pk).first()
    if order is None:
        raise NotFound
    return order


def _refused(refusal: OrderRefused) -> APIException:
    return PermissionDenied(str(refusal)) if isinstance(refusal, NotAllowed) else Conflict(str(refusal))


@extend_schema(
    methods=["GET"],
    operation_id="orders_list",
    parameters=[OpenApiParameter(name) for name in ("q", "modality", "status", "priority", "site", "since", "until")],
    responses=OrderPageSerializer,
)
@extend_schema(
    methods=["POST"], operation_id="orders_create", request=NewOrderSerializer, responses={201: OrderSerializer}
)
@api_view(["GET", "POST"])
def orders(request: Request) -> Response:
    """List the orders that one may see, the newest schedule first; place an order."""
    principal = principal_of(request._request)
    if request.method == "POST":
        return _place(request, principal)
    form = OrderFilterForm(request.query_params, principal=principal)
    if not form.is_valid():
        raise ValidationError(form.errors.get_json_data())
    criteria = {**form.cleaned_data, "site__slug": form.cleaned_data.get("site", "")}
    found = selectors.orders_matching(principal, criteria)[: selectors.PAGE]
    return Response({"orders": OrderSerializer(found, many=True).data})


def _place(request: Request, principal: Principal) -> Response:
    serializer = NewOrderSerializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    data = dict(serializer.validated_data)
    site = sites_where(principal, Capability.ORDER_MANAGE).filter(slug=data.pop("site")).first()
    if site is None:
        raise PermissionDenied
    names = ("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date", "patient_sex")
    identity = PatientIdentity(**{name: data.pop(name) for name in names if name in data})
    try:
        order = services.place_order(site=site, patient=identity, details=OrderDetails(**data), principal=principal)
    except OrderRefused as refusal:
        raise _refused(refusal) from refusal
    return Response(_shown(order.pk), status=201)


@extend_schema(methods=["GET"], operation_id="orders_retrieve", responses=OrderSerializer)
@extend_schema(
    methods=["PATCH"], operation_id="orders_change", request=ChangesSerializer(partial=True), responses=OrderSerializer
)
@api_view(["GET", "PATCH"])
def order(request: Request, pk: int) -> Response:
    """Give an order; change it."""
    shown = _visible(request, pk)
    if request.method == "PATCH":
        serializer = ChangesSerializer(data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        changes = {name: value for name, value in serializer.validated_data.items() if name in changeable_details()}
        try:
            services.change_order(order=shown, changes=changes, principal=principal_of(request._request))
        except OrderRefused as refusal:
            raise _refused(refusal) from refusal
    return Response(_shown(shown.pk))


@extend_schema(operation_id="orders_cancel", request=None, responses=OrderSerializer)
@api_view(["POST"])
def cancel(request: Request, pk: int) -> Response:
    """Cancel an order that no images have come for."""
    try:
        services.cancel_order(order=_visible(request, pk), principal=principal_of(request._request))
    except OrderRefused as refusal:
        raise _refused(refusal) from refusal
    return Response(_shown(pk))
