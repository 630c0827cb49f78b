"""Admission by hooks: rules of others, loaded into this process."""

from __future__ import annotations

from sagong.host import Host
from sagong.model.admission import AdmissionHooks, AdmissionRequest
from sagong_kube import refusal
from sagong_kube.registry.review import Review

__all__ = ["HookAdmission"]


class HookAdmission:
    """Further admission between the changing and the refusing built-in steps."""

    def __init__(self, host: Host) -> None:
        self._hooks = host.hooks(AdmissionHooks)

    async def mutate(self, review: Review) -> None:
        """Hooks change the object in place."""
        self._hooks.mutate(request=_request(review))

    async def validate(self, review: Review) -> None:
        """The first reason refuses; all warnings are told."""
        request = _request(review)
        said = next((why for why in self._hooks.refuse(request=request) if why), "")
        review.warnings.extend(request.warnings)
        if said:
            raise refusal.forbidden(
                review.resource.plural, review.resource.group, review.name, said
            )


def _request(review: Review) -> AdmissionRequest:
    resource, actor = review.resource, review.actor
    return AdmissionRequest(
        operation=review.operation,
        group=resource.group,
        version=resource.kind.version,
        resource=resource.plural,
        subresource=review.subresource,
        namespace=review.namespace,
        name=review.name,
        username=actor.username,
        groups=actor.groups,
        dry_run=review.dry_run,
        object=review.new,
        old=review.old,
        warnings=[],
    )
