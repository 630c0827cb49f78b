"""A scheduler in twenty lines: every pod goes to the first node that is there."""

import msgspec

from sagong.contracts.scheduler import Placement, Question, Verdict
from sagong.host import Host


class FirstNode:
    """Fills slot `scheduler`."""

    def __init__(self, host: Host) -> None:
        host.log.info("every pod to the first node")

    def place(self, question: Question) -> Verdict:
        """The same question has the same answer."""
        nodes = [msgspec.json.decode(node)["metadata"]["name"] for node in question.nodes]
        metas = [msgspec.json.decode(pod)["metadata"] for pod in question.pods]
        node, why = (min(nodes), ()) if nodes else ("", ("0/0 nodes are available",))
        return Verdict(
            placements=tuple(
                Placement(
                    namespace=meta.get("namespace", ""), name=meta["name"], node=node, reasons=why
                )
                for meta in metas
            )
        )
