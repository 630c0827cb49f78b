"""Answers DNS messages: from the zone, or from upstream servers through a small cache."""

from __future__ import annotations

import copy
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from sagong_dns.zone import Zone

__all__ = ["Resolver"]

_CACHED = 4096
_LONGEST_TTL = 300
_UPSTREAM_SECONDS = 2.0
_HOPS = 8


class _Kept(NamedTuple):
    """An answer of upstream, when it came, and until when it may be told."""

    since: float
    until: float
    message: dns.message.Message

    def aged(self, section: Sequence[dns.rrset.RRset], now: float) -> list[dns.rrset.RRset]:
        """Its records with the time that is left of theirs (RFC 1035, 3.2.1)."""
        found = [copy.copy(rrset) for rrset in section]
        for rrset in found:
            rrset.ttl = max(rrset.ttl - int(now - self.since), 0)
        return found


class Resolver:
    """One question, one answer; errors of upstream are SERVFAIL, never silence."""

    def __init__(
        self,
        zone: Zone,
        upstream: Sequence[str],
        ttl: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._zone = zone
        self._upstream = tuple(upstream)
        self._ttl = ttl
        self._clock = clock
        self._cache: OrderedDict[tuple[str, int], _Kept] = OrderedDict()

    async def resolve(self, wire: bytes, *, limit: int) -> bytes:
        """The answer to a message; b"" for one that deserves none (not DNS at all)."""
        try:
            question = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return b""
        if question.flags & dns.flags.QR:
            return b""  # an answer: to answer it could go on for ever (RFC 1035 section 4.1.1)
        answer = dns.message.make_response(question, recursion_available=True)
        if question.opcode() != dns.opcode.QUERY or len(question.question) != 1:
            answer.set_rcode(dns.rcode.NOTIMP)
        elif question.question[0].rdclass != dns.rdataclass.IN:
            answer.set_rcode(dns.rcode.REFUSED)
        else:
            await self._answer(question, answer)
        size = max(question.payload, 512) if question.edns >= 0 else 512
        return _to_wire(answer, min(limit, size) if limit < 65535 else limit)

    async def _answer(self, question: dns.message.Message, answer: dns.message.Message) -> None:
        asked = question.question[0]
        name = asked.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(asked.rdtype)
        if not self._zone.covers(name):
            await self._ask_upstream(question, answer)
            return
        answer.flags |= dns.flags.AA
        found = self._zone.answer(name, kind)
        if not found.known:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        if not found.records:
            # Else nobody may remember that there is nothing (RFC 2308 section 5).
            answer.authority.append(self._start_of_authority())
        owner = asked.name
        for hop, (record_kind, text) in enumerate(found.records):
            if hop >= _HOPS * 32:
                break
            text = text if record_kind not in ("CNAME", "PTR") else f"{text.rstrip('.')}."
            answer.answer.append(dns.rrset.from_text(owner, self._ttl, "IN", record_kind, text))

    def _start_of_authority(self) -> dns.rrset.RRset:
        domain, serial = self._zone.domain, int(time.time())
        text = f"ns.dns.{domain}. hostmaster.{domain}. {serial} 7200 1800 86400 {self._ttl}"
        return dns.rrset.from_text(f"{domain}.", self._ttl, "IN", "SOA", text)

    async def _ask_upstream(
        self, question: dns.message.Message, answer: dns.message.Message
    ) -> None:
        asked = question.question[0]
        key = (asked.name.to_text().lower(), int(asked.rdtype))
        kept = self._cached(key)
        if kept is None:
            found = await self._query(asked)
            if found is None:
                answer.set_rcode(dns.rcode.SERVFAIL)
                return
            kept = self._keep(key, found)
        now = self._clock()
        answer.set_rcode(kept.message.rcode())
        answer.answer = kept.aged(kept.message.answer, now)
        answer.authority = kept.aged(kept.message.authority, now)

    async def _query(self, asked: dns.rrset.RRset) -> dns.message.Message | None:
        query = dns.message.make_query(asked.name, asked.rdtype)
        for server in self._upstream:
            try:
                found, _ = await dns.asyncquery.udp_with_fallback(
                    query, server, timeout=_UPSTREAM_SECONDS
                )
            except (dns.exception.DNSException, OSError, EOFError):
                continue  # silent, or gone in the midst of it
            if found.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return found
        return None

    def _cached(self, key: tuple[str, int]) -> _Kept | None:
        found = self._cache.get(key)
        if found is None or found.until < self._clock():
            return None
        self._cache.move_to_end(key)
        return found

    def _keep(self, key: tuple[str, int], message: dns.message.Message) -> _Kept:
        ttls = [rrset.ttl for rrset in (*message.answer, *message.authority)]
        ttl = min([*ttls, _LONGEST_TTL]) if ttls else self._ttl
        now = self._clock()
        kept = self._cache[key] = _Kept(now, now + ttl, message)
        while len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        return kept


def _to_wire(answer: dns.message.Message, limit: int) -> bytes:
    """Truncated with TC set when it does not fit, so that the client asks by TCP."""
    try:
        return answer.to_wire(max_size=limit)
    except dns.exception.TooBig:
        answer.answer.clear()
        answer.authority.clear()
        answer.additional.clear()
        answer.flags |= dns.flags.TC
        return answer.to_wire(max_size=limit)
