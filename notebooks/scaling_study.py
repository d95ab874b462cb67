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
# # Scaling study
#
# Up to how many PEs does it pay? A sweep simulates every point of a grid and gives one table. This one takes a second;
# [sweeps](../docs/sweeps.md) of millions work the same way, in parallel and resumable.

# %%
import pe_sim as ps

ps.use_style()
study = {
    "base": {"model": "llama-3.2-1b", "array": "bus-tree-256", "context": 2048},
    "grid": {
        "workflow": ["workflow-1", "workflow-2", "megatron"],
        "num_pes": {"from": 64, "to": 4096, "times": 2},
    },
}
result = ps.sweep(study, out="scaling_study", resume=True, jobs=1)
result

# %% [markdown]
# ## Speed against size
# Both axes are logarithmic: a straight line up to the right would be twice the PEs, twice the speed. All three start
# like that, and all three bend. With attention by head (`workflow-1`) the second thousand PEs gain next to nothing; by
# token (`workflow-2`) every doubling still pays, if less and less.

# %%
ax = result.plot("num_pes", "tokens_per_second", by="workflow")

# %% [markdown]
# ## What stops it
# The bus is shared by all. While the work of a PE halves with every doubling, the messages do not, and their share of
# the time grows. Attention by head, in `workflow-1` and `megatron`, holds the bus for a third of the time and more;
# attention by token stays below a tenth. It is not the bus alone: `workflow-1` waits for the reduction tree nearly as
# long, and a PE's work stops shrinking, too, once its shards no longer fill the tiles of its matrix unit.

# %%
ax = result.plot("num_pes", "utilization.bus", by="workflow")

# %% [markdown]
# Energy tells the same story from another side. The weights are read once, however many PEs read them; but each
# broadcast runs over longer wires and is written into more buffers.

# %%
ax = result.plot("num_pes", "joules_per_token", by="workflow")

# %% [markdown]
# ## Is it the bus or the tree?
# One per cent more, and less, of a parameter, one at a time: how many per cent of the step is it worth? At 1,024 PEs,
# under the best of the three workflows, the PEs' memories still count most, and the bus hardly at all.

# %%
step = ps.Decode(context_len=2048)
few = ["PE memory bandwidth", "bus width", "tree width", "vector lanes", "matrix outputs", "number of PEs"]
worth = ps.sensitivity("llama-3.2-1b", "bus-tree-1024", step, workflow="workflow-2", parameters=few)
ax = worth.plot()

# %% [markdown]
# The same under the workflow that bent first. More bus is now worth several times more memory bandwidth, and more PEs
# next to nothing: a better mapping is the cheaper remedy.

# %%
worth = ps.sensitivity("llama-3.2-1b", "bus-tree-1024", step, workflow="workflow-1", parameters=few)
ax = worth.plot()

# %% [markdown]
# The table behind the figures is `result.to_frame()`, or the Parquet file `result.path`; it has all figures of each
# report. A point that fails is a row with its error, and a second run computes nothing twice.

# %%
result.to_frame().pivot(index="num_pes", columns="workflow", values="cycles")
