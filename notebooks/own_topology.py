# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own topology
#
# An interconnect is a graph of channels. Any graph will do: one from networkx, or one from a file. What would it do for
# a language model, against one bus and one tree?

# %%
import networkx as nx

import pe_sim as ps
from pe_sim.network.metrics import scaled_to_wire, wire_bits_mm

ps.use_style()
bus_tree = ps.load_array("bus-tree-16-large")
link = {"bytes_per_cycle": 64, "latency_cycles": "auto", "overhead_cycles": 1}
bus_tree

# %% [markdown]
# ## A graph from code
# A ring of 16 PEs with chords to the fourth neighbour, and the root at PE 0. Nodes 0 to 15 are the PEs; every edge is a
# channel each way; its latency follows from its length on the floor plan.

# %%
graph = nx.circulant_graph(16, [1, 4])
graph.add_edge("root", 0)
network = {"kind": "graph", "graph": nx.node_link_data(graph, edges="edges"), "link": link}
chords = ps.load_array("bus-tree-16-large", overrides={"name": "chordal-ring", "network": network})
ps.topology_metrics(chords)

# %% [markdown]
# ## A graph from a file
# [ring_of_buses.json](ring_of_buses.json) has four switches in a ring and four PEs on a bus at each. A bus is a node of
# its kind: a single channel that all its PEs share. In an array's YAML file it is `network: {kind: graph, file: ...}`.

# %%
network = {"kind": "graph", "file": "ring_of_buses.json", "link": link}
buses = ps.load_array("bus-tree-16-large", overrides={"name": "ring-of-buses", "network": network})
ax = ps.plot_topology(buses)

# %% [markdown]
# ## One collective at a time
# A sum over all PEs, 16 KiB each. Joints and routers add what meets in them; a bus carries, but does not add, so each
# PE on it sends its own.

# %%
ps.collective("all-reduce", bus_tree, num_bytes=16384)

# %%
ps.collective("all-reduce", chords, num_bytes=16384)

# %%
ps.collective("all-reduce", buses, num_bytes=16384)

# %% [markdown]
# Where everybody has something else to say to everybody, many channels beat one bus by far:

# %%
ps.collective("all-to-all", bus_tree, num_bytes=64)

# %%
ps.collective("all-to-all", chords, num_bytes=64)

# %% [markdown]
# ## Whole steps
# A good mapping of a transformer broadcasts and reduces, and needs no all-to-all. A batch of 32, mapped as Megatron
# does: the own graphs lose what their hops and shared buses cost.

# %%
step = ps.Decode(batch_size=32, context_len=512)
comparison = ps.compare("llama-3.2-1b", [bus_tree, chords, buses], step, "megatron")
ax = comparison.plot()

# %% [markdown]
# Where is it crowded? One panel for all messages and one for each kind: the reductions fill the small buses, the
# broadcasts hardly touch them.

# %%
comparison["ring-of-buses"].plot_channel_heats()

# %% [markdown]
# ## At equal wire
# The three do not have the same wires. With all widths scaled to the wire that the bus and the tree take, what is left
# is the shape:

# %%
budget = wire_bits_mm(bus_tree)
fair = [bus_tree, scaled_to_wire(chords, budget), scaled_to_wire(buses, budget)]
ps.compare("llama-3.2-1b", fair, step, "megatron")
