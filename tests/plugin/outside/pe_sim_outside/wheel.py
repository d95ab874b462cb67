"""A kind of interconnect: a ring of PEs, each with a spoke to a switch in the middle, where the root is too."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from pe_sim.config.networks.schema import GraphNetworkFile, LinkFile
from pe_sim.config.networks.shapes import Link
from pe_sim.network.topology.assembly import Assembly, loop, middle
from pe_sim.network.topology.topology import ROOT


class WheelFile(GraphNetworkFile):
    kind: Literal["wheel"] = Field(description="wheel: a ring with a switch in the middle")
    link: LinkFile = Field(description="every link, one channel each way")


@dataclass(frozen=True, slots=True)
class WheelShape:
    link: Link


class Wheel:
    def build(self, plan):
        number, link = plan.num_pes, plan.network.shape.link
        assembly = Assembly(plan, loop(number), routers=True)
        assembly.node("hub", "switch", middle([assembly.place(pe) for pe in range(number)]))
        for pe in range(number):
            if number > 2 or pe + 1 < number:  # two PEs have one link, one PE has none
                assembly.pair(pe, (pe + 1) % number, f"rim {pe}", "rim", link)
            assembly.pair(pe, "hub", f"spoke {pe}", "spoke", link)
        assembly.pair("hub", ROOT, "root", "root link", link)
        return assembly.finish("PEs along a closed loop, the switch in the middle")

    def diameter(self, plan):
        return min(plan.num_pes // 2, 2)

    def bisection(self, plan):
        return None


section, builder = WheelFile, Wheel()


def shape(section, num_pes):
    return WheelShape(Link(**section.link.model_dump()))
