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
# # Bus utilization
#
# On this machine a broadcast is one message, however many PEs listen. Giving every PE *different* data takes a message
# each. Who holds the bus, when, and for what? Two layers of Llama-2-7B are enough to see it, for all layers look alike.

# %%
import matplotlib.pyplot as plt
import pandas as pd

import pe_sim as ps

ps.use_style()
model = ps.load_model("llama-2-7b", overrides={"num_layers": 2})
step = ps.Decode(batch_size=1, context_len=2048)
by_head = ps.simulate(model, "bus-tree-256", step, workflow="workflow-1")
by_token = ps.simulate(model, "bus-tree-256", step, workflow="workflow-2")
by_head

# %% [markdown]
# ## Over time, stacked by kind of message
# Above, attention by head (`workflow-1`): 32 heads on 256 PEs, so eight PEs share a head, and the softmax of each head
# is put together and sent back to its group: the light blocks of `multicast`, for which the bus is held throughout.
# Below, attention by token (`workflow-2`): every PE keeps some tokens of all heads, and short broadcasts are all there
# is.

# %%
figure, axes = plt.subplots(2, 1, figsize=(8.0, 5.2))
ax = by_head.plot_bus_utilization(axes[0])
ax = by_token.plot_bus_utilization(axes[1])

# %% [markdown]
# Between the blocks the bus is idle: the PEs read weights. The dashed line is the mean over the step, and it is small.
# A bus is not made too narrow by its mean utilization but by what waits while it is held: the critical path has the
# answer.

# %%
pd.DataFrame(by_head.bounds["critical_path"]).head(6)

# %% [markdown]
# ## What a scatter costs
# The presets may replace a scatter by a broadcast of which every PE keeps its slice. Forced to send a message to each
# PE, `workflow-1` looks like this: 256 messages instead of one, and blocks of `scatter` and `all-gather` that were not
# there before.

# %%
serial = {"name": "serial scatter and gather", "network.collectives": {"scatter": "serial", "gather": "serial"}}
forced = ps.simulate(model, ps.load_array("bus-tree-256", overrides=serial), step, workflow="workflow-1")
ax = forced.plot_bus_utilization()

# %% [markdown]
# One vector of 8 KiB, cut into 256 pieces: message by message, and as one broadcast.

# %%
ps.collective("scatter", forced.array, num_bytes=32)

# %%
ps.collective("scatter", "bus-tree-256", num_bytes=32)

# %% [markdown]
# ## Where the reductions are
# Partial sums do not touch the bus, they go up the tree. On an interconnect whose channels are a graph everything is
# seen at once: here an H-tree, its busiest channel first, then the mean of each level. What is broadcast comes down on
# every level, what is reduced goes up. The `multicast` stays on the three lowest ones, for a head's eight PEs are
# neighbours there: on one bus it kept everybody waiting, here 32 of them go on side by side.

# %%
h_tree = ps.simulate(model, "h-tree-256", step, workflow="workflow-1")
ax = h_tree.plot_bus_utilization(bins=150)

# %% [markdown]
# As a map, on a mesh, whose root is at one corner: the darker, the busier. Each row adds up towards the first column,
# and that towards the root. Since routers add what meets in them, no channel on the way carries more than another.

# %%
mesh = ps.simulate(model, "mesh-256", step, workflow="workflow-1")
ax = mesh.plot_channel_heat(tag="reduce")
