"""Programs to be tested: over several scopes, their cycles, and a simulator that steps through all cycles."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from pe_sim.network.collectives.plans import WAYS, Planner, Sizes, parts_of, wholes_of
from pe_sim.network.collectives.programs import Pattern, timed
from pe_sim.network.interconnect import interconnect_of
from pe_sim.network.routing.hop_times import ChannelTimes
from pe_sim.network.routing.hops import HopBuilder
from pe_sim.schedule.routed_moves import collective_planner
from pe_sim.schedule.stages import RoutedStage, Tag
from tests.network.networks import array_of

LINK = {"bytes_per_cycle": 8, "latency_cycles": 3, "overhead_cycles": 2}
OMEGA, LAMBDA, WIDTH, KAPPA, FORWARD = 2, 3, 8, 5, 4  # of `small`


def small(kind, num_pes, **section):
    """An array whose links are all equal."""
    return array_of(kind, num_pes, **{"link": LINK, "combine_cycles": KAPPA, "forward_cycles": FORWARD, **section})


def beats(num_bytes, width=WIDTH):
    return -(-num_bytes // width)


def pattern_of(interconnect, bounds, sends=None, at_root=False):
    """Scopes (first, last), with hubs where their PEs meet, or at the root."""
    first, last = np.array(bounds, dtype=np.int64).reshape(-1, 2).T
    flows = interconnect.flows
    hub = np.full(len(first), flows.root) if at_root else flows.hubs(first, last)
    sends = np.ones(interconnect.topology.num_pes, dtype=bool) if sends is None else sends
    return Pattern(first, last, hub, sends, interconnect.topology.combine_cycles)


def planner_of(array, bounds, parts, *, names=None):
    """Of scopes, with as many bytes a PE in both dtypes."""
    interconnect = interconnect_of(array)
    pattern = pattern_of(interconnect, bounds)
    parts = np.broadcast_to(np.asarray(parts, dtype=np.int64), (array.num_pes,))
    whole = wholes_of(pattern, parts)
    sizes = Sizes(whole, whole, parts_of(pattern, array.num_pes, whole), parts)
    return Planner(interconnect, pattern, sizes, names or {})


def cycles(array, kind, way, num_bytes):
    """Of a collective on the whole array, in isolation."""
    planner = collective_planner(kind, array, num_bytes)
    return planner.cycles(planner.plan(kind.replace("-", "_"), way))


def fitting_plans(planner, kind):
    """Every way that fits, with its plan."""
    return {name: planner.plan(kind, name) for name in planner.fitting(kind)}


def legs_of_all(array, bounds, parts):
    """(kind, way, leg) of everything that fits."""
    planner = planner_of(array, bounds, parts)
    for kind in WAYS:
        for name, plan in fitting_plans(planner, kind).items():
            for leg in plan.legs:
                yield kind, name, leg


def run(interconnect, leg, ready):
    """The times of a leg whose senders are ready at different times."""
    state = ChannelTimes.idle(len(interconnect.topology.channels))
    return timed(interconnect, leg.program, leg.payload_bytes, ready, state)


def step_by_cycles(hops, channels, num_bytes, ranks, ready):
    """(hops,) grants and tails, found by going through all cycles one by one.

    Of all that ask in one cycle, on whichever channels, the lowest rank and then the lower hop asks first; it is
    granted a free channel at once, and what then asks in the same cycle is one of those that are still to ask.
    """
    width = channels.bytes_per_cycle[hops.channel]
    beat = [-(-int(num_bytes[m]) // int(w)) for m, w in zip(hops.message, width, strict=True)]
    omega = channels.overhead_cycles[hops.channel].tolist()
    flight = channels.latency_cycles[hops.channel].tolist()
    channel, rank = hops.channel.tolist(), ranks[hops.message].tolist()
    feeds, followers, grant, tail = defaultdict(list), defaultdict(list), {}, {}
    for before, after, stored in zip(hops.before.tolist(), hops.after.tolist(), hops.stored.tolist(), strict=True):
        feeds[after].append((before, stored))
        followers[before].append(after)
    sources = defaultdict(list)
    for source, hop in zip(hops.source.tolist(), hops.first_hop.tolist(), strict=True):
        sources[hop].append(int(ready[source]))
    waiting, asking, queues, free, cycle = set(range(len(hops))), set(), defaultdict(list), defaultdict(int), 0

    def ask(hop):
        if hop not in waiting or any(before not in grant for before, _ in feeds[hop]):
            return
        heads = [tail[b] if stored else grant[b] + omega[b] + flight[b] for b, stored in feeds[hop]]
        if max([*heads, *sources[hop]], default=0) + int(hops.wait_cycles[hop]) <= cycle:
            waiting.remove(hop)
            asking.add((rank[hop], hop))

    def serve(queue):
        while queue and free[channel[queue[0]]] <= cycle:
            hop = queue.pop(0)
            grant[hop] = cycle
            free[channel[hop]] = cycle + (omega[hop] + beat[hop] if beat[hop] else 0)
            arrived = max([*(tail[before] for before, _ in feeds[hop]), *sources[hop]], default=0)
            late = arrived + int(hops.wait_cycles[hop]) + flight[hop]
            tail[hop] = max(cycle + omega[hop] + flight[hop] + beat[hop], late)
            for after in followers[hop]:
                ask(after)

    while len(grant) < len(hops):
        for queue in queues.values():
            serve(queue)
        for hop in sorted(waiting):
            ask(hop)
        while asking:
            first = min(asking)
            asking.remove(first)
            queues[channel[first[1]]].append(first[1])
            serve(queues[channel[first[1]]])
        cycle += 1
    every = range(len(hops))
    return [grant[hop] for hop in every], [tail[hop] for hop in every]


def one_brings_about_another():
    """An array whose channels have no latency, a stage over them, and its grants.

    Ranks 3 and 2 ask at once, 1 because of 3's grant. In that cycle 2 is taken first, then 3, then 1, which asks for
    the channel that 2 has got.
    """
    array = array_of("line", 3, link={"bytes_per_cycle": 1, "latency_cycles": 0, "overhead_cycles": 0})
    one, zero = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    builder = HopBuilder()
    cause, brought, other = (
        builder.add(one * channel, one * message, zero, one * wave)
        for message, (channel, wave) in enumerate([(0, 0), (1, 1), (1, 0)])
    )
    builder.link(cause, brought)
    builder.start(zero, cause)
    builder.start(zero, other)
    builder.end(brought, zero, zero)
    builder.end(other, one, zero)
    sizes = np.full(3, 4)
    stage = RoutedStage(
        *("stage", "stage", "", (), 0),
        tag=Tag.UNICAST,
        hops=builder.build(1, 2, 3),
        from_pe=False,
        to_pes=None,
        num_bytes=sizes,
        rank=np.array([3, 1, 2]),
        counted_bytes=sizes,
    )
    return array, stage, [0, 4, 0]
