"""A replica's certificate can be verified at every moment of an authority's life, its replacement and its end."""

from __future__ import annotations

import datetime as dt
import random

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from tests.unit.tls.memory_secret import MemorySecret

from tickwheel_operator.tls.authority import BACKDATE, certificates, issue, make_authority
from tickwheel_operator.tls.own import OwnCertificates
from tickwheel_operator.tls.rotation import Authorities, Terms, advance, bundle, leaf_due

NAME = "tickwheel.tickwheel-system.svc"
MINUTE, DAY = 60_000, 86_400_000
START = 1_800_000_000_000
TERMS = Terms(authority_ms=9 * DAY, leaf_ms=2 * DAY, publish_ms=60 * MINUTE)


class ManualClock:
    def __init__(self, now_ms: int = START) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def now_us(self) -> int:
        return self.now_ms() * 1_000

    def boot_ms(self) -> int:
        return self.ms


def verify(leaf_pem: bytes, trusted: str, at_ms: int) -> None:
    """As a strict TLS client does. Raises `VerificationError`."""
    store = Store(certificates(trusted.encode()))
    at = dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)
    PolicyBuilder().store(store).time(at).build_server_verifier(x509.DNSName(NAME)).verify(
        certificates(leaf_pem)[0], []
    )


async def play(terms: Terms, *, days: int, seed: int, bundle_ages_ms: list[int]) -> set[x509.Certificate]:
    """Three replicas and their workers, through `days` in steps of five minutes; the authorities that signed.

    Replicas look at the Secret when they will, or cannot for hours; their clocks differ by minutes; one of them
    leads and publishes; workers have bundles of each of the ages. Each pair of leaf and bundle is verified at the first
    and the last moment at which it met.
    """
    fate, secret = random.Random(seed), MemorySecret()
    clocks = [ManualClock(), ManualClock(), ManualClock()]
    replicas = [OwnCertificates(secret, clock, names=[NAME], terms=terms) for clock in clocks]
    published: list[str] = []
    met: dict[tuple[bytes, str], list[int]] = {}
    signed: set[x509.Certificate] = set()
    step_ms = 5 * MINUTE
    cut_off = [0, 0, 0]
    leader = replicas[0]
    for number, now_ms in enumerate(range(START, START + days * DAY, step_ms)):
        for index, replica in enumerate(replicas):
            clocks[index].ms = now_ms + (index - 1) * 2 * MINUTE
            if fate.random() < 0.002:
                cut_off[index] = number + 60  # five hours without the API server
            if number and (cut_off[index] > number or fate.random() < 0.3):
                continue
            await replica.renew()
        assert secret.stored is not None
        # The leader writes the ConfigMaps from what it last read.
        leader = fate.choice(replicas) if fate.random() < 0.01 else leader
        published.append(leader.ca_bundle())
        for replica in replicas:
            assert replica._leaf is not None
            signed.add(replica._leaf.issuer)
            for age_ms in bundle_ages_ms:
                had = published[max(0, number - age_ms // step_ms)]
                met.setdefault((replica._leaf.certificate_pem, had), []).append(now_ms)
    for (leaf, had), moments in met.items():
        for at_ms in (moments[0], moments[-1]):
            verify(leaf, had, at_ms)
    return signed


async def test_a_worker_whose_bundle_is_minutes_old_verifies_each_replica_through_all_rotations():
    # A leader that is cut off for five hours publishes late: the delay has to be longer than that.
    terms = Terms(authority_ms=12 * DAY, leaf_ms=2 * DAY, publish_ms=8 * 60 * MINUTE)
    signed = await play(terms, days=30, seed=1, bundle_ages_ms=[0, 5 * MINUTE, 60 * MINUTE])
    assert len(signed) >= 4, "the test must see several rotations"


async def test_an_authority_that_signed_at_once_would_be_noticed_by_that_test():
    terms = Terms(authority_ms=12 * DAY, leaf_ms=2 * DAY, publish_ms=1)
    with pytest.raises(VerificationError):
        await play(terms, days=30, seed=1, bundle_ages_ms=[0, 5 * MINUTE, 60 * MINUTE])


def test_the_next_authority_is_trusted_before_it_signs_and_the_old_one_until_it_expires():
    first = advance(None, START, TERMS, make_authority)
    assert advance(first, START + 6 * DAY - 1, TERMS, make_authority) is first
    announced = advance(first, START + 6 * DAY, TERMS, make_authority)
    assert announced.current is first.current and announced.next is not None
    assert len(certificates(bundle(announced).encode())) == 2
    waiting = START + 6 * DAY + TERMS.publish_ms
    assert advance(announced, waiting - 1, TERMS, make_authority) is announced
    promoted = advance(announced, waiting, TERMS, make_authority)
    assert promoted == Authorities(announced.next, None, (first.current.certificate,))
    assert advance(promoted, START + 9 * DAY - 1, TERMS, make_authority) is promoted
    assert advance(promoted, START + 9 * DAY, TERMS, make_authority).previous == ()


def test_an_authority_that_expired_while_nobody_was_there_is_replaced_at_once():
    old = advance(None, START, TERMS, make_authority)
    new = advance(old, START + 100 * DAY, TERMS, make_authority)
    assert new.current.certificate != old.current.certificate and (new.next, new.previous) == (None, ())
    announced = advance(old, START + 6 * DAY, TERMS, make_authority)
    assert advance(announced, START + 9 * DAY, TERMS, make_authority).current is announced.next


def test_a_leaf_is_renewed_after_two_thirds_of_its_life_and_ends_with_its_authority():
    known = advance(None, START, TERMS, make_authority)
    leaf = issue(known.current, names=[NAME], now_ms=START, lifetime_ms=TERMS.leaf_ms)
    due = START + TERMS.leaf_ms * 2 // 3
    assert [leaf_due(leaf, known, at) for at in (START, due - 2_000, due + 2_000)] == [False, False, True]
    last = issue(known.current, names=[NAME], now_ms=START + 8 * DAY, lifetime_ms=TERMS.leaf_ms)
    assert last.expires_ms == known.current.expires_ms
    assert not leaf_due(last, known, last.expires_ms - 1), "another leaf of this authority would not live longer"
    assert leaf_due(leaf, advance(None, START, TERMS, make_authority), START), "of another authority"


@pytest.mark.parametrize("behind", [dt.timedelta(minutes=5), BACKDATE - dt.timedelta(minutes=1)])
def test_a_worker_whose_clock_is_behind_accepts_what_was_just_made(behind):
    known = advance(None, START, TERMS, make_authority)
    leaf = issue(known.current, names=[NAME, "10.1.2.3"], now_ms=START, lifetime_ms=TERMS.leaf_ms)
    verify(leaf.certificate_pem, bundle(known), START - int(behind.total_seconds() * 1000))


def test_a_leaf_is_for_all_its_names_and_addresses():
    known = advance(None, START, TERMS, make_authority)
    leaf = issue(known.current, names=[NAME, "10.1.2.3", "fd00::1"], now_ms=START, lifetime_ms=DAY)
    names = certificates(leaf.certificate_pem)[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.1.2.3", "fd00::1"]


@pytest.mark.parametrize(
    "terms", [Terms(publish_ms=0), Terms(authority_ms=DAY, leaf_ms=2 * DAY), Terms(publish_ms=200 * DAY)]
)
def test_terms_that_cannot_be_kept_are_refused(terms):
    assert "for example" in terms.faults()[0]


def test_the_default_terms_can_be_kept():
    assert Terms().faults() == []
