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
# # Several arrays
#
# Llama-3.1-405B does not fit one array of 1,024 PEs: simulated all the same, a PE has to hold nearly eight times what
# it has room for. How is it spread over many arrays, and what does the spreading cost?

# %%
import pandas as pd

import pe_sim as ps
from pe_sim.config.systems.load import describe_system

ps.use_style()
model = ps.load_model("llama-3.1-405b")
step = ps.Decode(batch_size=8, context_len=2048)
ps.simulate(model, "bus-tree-1024", step, "megatron", allow_overflow=True)

# %% [markdown]
# ## A system
# A system is arrays and the links between their roots. This preset has 64 arrays, each with a port at one switch;
# `pe-sim systems` lists the others, and any interconnect can be the links.

# %%
system = ps.load_system("switch-of-64-bus-tree-1024")
describe_system(system)

# %% [markdown]
# ## A plan
# A *plan* says who works on what. By its degrees: tp 8 shares the heads and FFN columns of a layer among eight arrays,
# pp 8 cuts the 126 layers into eight stages. Together they are the 64 arrays. What an array has, it distributes over
# its PEs by a workflow, here `megatron`, as if it were alone.

# %%
plan = {"name": "tp 8 x pp 8", "tp": 8, "pp": 8}
report = ps.simulate_system(model, system, step, plan, "megatron")
report

# %% [markdown]
# The memories are hardly filled now, and the arrays are busy only half of the time. The other half are *bubbles*: a
# stage has nothing to do before the first rows arrive (fill) and after its last have left (drain). Two stages have 15
# layers, the others 16, and wait a little in between. The critical path says that the links are not to blame:

# %%
path = pd.DataFrame(report.bounds["critical_path"])
path.groupby(["kind", "name"])[["count", "cycles", "share"]].sum().sort_values(
    ["kind", "cycles"], ascending=False
).round(3)

# %% [markdown]
# Nor are they crowded. Every port of the switch carries two all-reduces a layer, and the rows that move on to the next
# stage, and that takes it one hundredth of the time: what an exchange costs is latency.

# %%
columns = ["name", "messages", "bytes", "busy_cycles", "utilization"]
report.links.to_frame()[columns].nlargest(4, "busy_cycles")

# %% [markdown]
# ## The pipeline in time
# The eight sequences go through the stages one by one, as eight *microbatches*. The staircase is the fill, its mirror
# image the drain.

# %%
ax = report.plot_timeline()

# %% [markdown]
# ## More microbatches
# With more sequences there is more to part. A batch of 32 in two parts, and in 16; mind the axes.

# %%
batch = ps.Decode(batch_size=32, context_len=2048)
parts = {
    count: ps.simulate_system(
        model, system, batch, {**plan, "name": f"{count} microbatches", "microbatches": count}, "megatron"
    )
    for count in (1, 2, 4, 8, 16, 32)
}
ax = parts[2].plot_timeline()

# %%
ax = parts[16].plot_timeline()

# %%
table = pd.DataFrame(index=pd.Index(parts, name="microbatches"))
table["latency, ms"] = [1e3 * each.latency_seconds for each in parts.values()]
table["bubbles, %"] = [100 * each.bubble_share for each in parts.values()]
table["read from memories, TB"] = [1e-12 * each.memory["bytes_read"] for each in parts.values()]
table.round(1)

# %% [markdown]
# In one part, one stage works at a time. Every doubling takes away bubbles, and pays, up to 16 parts of two sequences.
# In 32 parts there are even fewer bubbles, but each part reads all weights again for a single sequence, and that costs
# more than the bubbles did.
#
# ## tp against pp
# Always 64 arrays: from one stage whose layers are shared by all, to 64 stages of one array each. One sequence alone
# for the latency of a token, and the batch of 32 for tokens per second.

# %%
alone = ps.Decode(batch_size=1, context_len=2048)
degrees = [{"tp": 64 // stages, "pp": stages} for stages in (1, 2, 4, 8, 16, 32, 64)]
single = [ps.simulate_system(model, system, alone, each, "megatron") for each in degrees]
many = [ps.simulate_system(model, system, batch, each, "megatron") for each in degrees]

table = pd.DataFrame(degrees, index=[f"{each['tp']} x {each['pp']}" for each in degrees])
table["ms a token, alone"] = [1e3 * each.latency_seconds for each in single]
table["tokens/s, batch of 32"] = [each.tokens_per_second for each in many]
table["bubbles of the batch, %"] = [100 * each.bubble_share for each in many]
table.round(1)

# %%
axes = table[["ms a token, alone", "tokens/s, batch of 32"]].plot.bar(
    subplots=True, layout=(1, 2), figsize=(9, 3), legend=False, rot=45, xlabel="tp x pp"
)

# %% [markdown]
# A single sequence gains nothing from stages: while one works, the others wait. It wants tp, up to 32 arrays. With 64
# the passes get no shorter, for a PE's shards fill but a part of its matrix unit, and the all-reduces get longer.
#
# The batch wants stages, which work on different sequences at the same time, up to 16 of them with two sequences a
# part. With 32 each part is a single sequence and reads all weights for it, and 64 stages are more than there are
# sequences to fill them.
#
# ## A plan from somewhere else
# Who comes from [Hetu, Merak or Galvatron](../docs/coming-from-hetu-merak-galvatron.md) has a plan. Here one from
# Hetu's generator: Llama-3-70B on a ring of eight arrays, two pipelines of two stages of two arrays. What inference has
# no use for, `zero` and `recompute`, is ignored, and said to be below the table.

# %%
ring = ps.load_system("ring-of-8-bus-tree-1024")
(hetu,) = ps.generate_llama_4d_config([], num_layers=80, num_gpus=8, dp=2, cp=1, tp=2, pp=2)
healthy = ps.simulate_system("llama-3-70b", ring, step, hetu, "megatron")
healthy

# %% [markdown]
# ## Something is broken
# Device 1 is: in the generator for unequal stages it is `unused_rank`, and its neighbour has the first stage of its
# pipeline alone. With 40 layers that stage is busy 1.6 times as long as any other; with 30 it is even with the next.

# %%
shared = {"num_layers": 80, "num_gpus": 8, "dp": 2, "tp": 2}
(even,) = ps.generate_llama_hetero_4d_config([1, 1], None, [1], [[40, 40], [40, 40]], None, [], **shared)
(uneven,) = ps.generate_llama_hetero_4d_config([1, 1], None, [1], [[30, 50], [40, 40]], None, [], **shared)
broken = ps.simulate_system("llama-3-70b", ring, step, even, "megatron")
mended = ps.simulate_system("llama-3-70b", ring, step, uneven, "megatron")
ax = mended.plot_timeline()

# %% [markdown]
# Less may be broken: two PEs of every array, or 64 of its 1,024. Others take over their shards, and more is lost than
# the PEs: what came out even on 1,024 does not on 1,022, and all wait for the PE that has the most.

# %%
few = ps.load_system("ring-of-8-bus-tree-1024", {"array.dead_pes": [3, 17]})
more = ps.load_system("ring-of-8-bus-tree-1024", {"array.dead_pes": list(range(64))})
reports = {
    "nothing": healthy,
    "array 1, 40 + 40 layers": broken,
    "array 1, 30 + 50 layers": mended,
    "2 PEs of every array": ps.simulate_system("llama-3-70b", few, step, hetu, "megatron"),
    "64 PEs of every array": ps.simulate_system("llama-3-70b", more, step, hetu, "megatron"),
}
table = pd.DataFrame({"latency, ms": {name: 1e3 * each.latency_seconds for name, each in reports.items()}})
table["longer by, %"] = 100 * (table["latency, ms"] / table["latency, ms"]["nothing"] - 1)
table.round(2)

# %% [markdown]
# ## The proof
# Does a plan compute the model? It is executed with real numbers, every array from its own shards, on a scaled-down
# model, and compared with the same model on no array at all; and the traffic, inside the arrays and between them, with
# the simulated one. Six PEs in each array, and one of them dead:

# %%
small = ps.load_system("ring-of-4-bus-tree-1024", {"array.num_pes": 6, "array.dead_pes": [2]})
ps.verify_system("llama-3-70b", small, {"tp": 2, "pp": 2}, "megatron")

# %% [markdown]
# ## Nobody has to guess
# A search looks for the degrees, the parts and the cut of the layers together; left out, the workflow is searched, too.
# With array 1 dead, it takes four of the seven others, two pipelines of one stage each, and is faster than the plan
# above with all seven: no stage waits for another.

# %%
seven = ps.load_system("ring-of-8-bus-tree-1024", {"dead_arrays": [1]})
found = ps.search_system("llama-3-70b", seven, step, workflow="megatron")
found

# %% [markdown]
# ## What to try next
# - `report.save_trace("step.json")` opens in Perfetto: a track for every array and for each of the hottest links.
# - `ps.Prefill(batch_size=8, prompt_len=512)` in place of the decode step: the prompts go through the stages in chunks.
# - `ps.load_system(..., {"links.link.latency_cycles": 2000})`: when do slower links make tp too expensive?
# - A file for a system of your own, with unlike arrays, and one for a plan of your own:
#   [several arrays](../docs/several-arrays.md).
# - `found.save_plan("best.yaml")` writes a plan file, which `pe-sim run` and `pe-sim verify` take by `--plan`.
