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
# # Quick start
#
# One token of Llama-2-7B on 256 processing elements (PEs) that share one broadcast bus and one reduction tree: how long
# does it take, and what does it wait for? Everything here is also a command: `pe-sim run --help`.

# %%
import pe_sim as ps

ps.use_style()  # readable in print and with any colour vision
model = ps.load_model("llama-2-7b")
model

# %% [markdown]
# A model is a preset's name, a Hugging Face `config.json`, or a mapping. So is an array; `overrides` changes any value
# of it by its dotted path, as `--set` does.

# %%
array = ps.load_array("bus-tree-256")
array

# %% [markdown]
# ## One decode step
# The KV cache holds 2,048 tokens, and one more is computed. The *workflow* says how every matrix and every head is
# distributed over the PEs; here the named one `workflow-1`.

# %%
step = ps.Decode(batch_size=1, context_len=2048)
report = ps.simulate(model, array, step, workflow="workflow-1")
report

# %% [markdown]
# The bar is the critical path: what the latency is made of, without gaps. Most of it is computation, and that is bound
# by the PEs' local memories: each weight is read once, for a single token. Communication is what is left, and what the
# other notebooks are about.
#
# ## What limits each operator
# In the roofline every operator is a point. With a single token all of them stand far to the left of the ridge: a
# weight is read for one multiply-add, and no matrix unit is ever full. Points on the slope get all that the memories
# deliver, those below it do not.

# %%
ax = report.plot_roofline()

# %% [markdown]
# ## The bus over time
# How busy the bus is, stacked by kind of message: a comb of 32 layers, each with its block of `multicast` in attention
# and short broadcasts around it. The bus is idle most of the time, and yet the PEs wait for it.

# %%
ax = report.plot_bus_utilization()

# %% [markdown]
# ## The operators as a table
# `to_frame()` is a pandas.DataFrame with a row for every operator of every layer. The largest ones:

# %%
report.to_frame().nlargest(5, "cycles")

# %% [markdown]
# ## What if the bus were wider?
# Another array, the same step. Four times the wires of the bus are worth a few per cent here; the notebook [scaling
# study](scaling_study.ipynb) finds where they are worth more.

# %%
wide = ps.load_array("bus-tree-256", overrides={"name": "bus of 256 B/cycle", "network.bus.bytes_per_cycle": 256})
comparison = ps.compare(model, [array, wide], step, "workflow-1")
comparison

# %% [markdown]
# ## A whole answer
# A prompt of 512 tokens and 128 tokens of output: one prefill, then decode steps with a growing cache. TTFT is the time
# to the first token, TPOT the mean time of those after it.

# %%
ps.generate(model, array, prompt_len=512, output_len=128, workflow="megatron")

# %% [markdown]
# ## On from here
# `report.save("step.json")`, `report.save_html("step.html")` and `report.save_trace("step-trace.json")` (for
# ui.perfetto.dev) write it down. Next: [bus utilization](bus_utilization.ipynb), [comparing
# workflows](comparing_workflows.ipynb), [scaling study](scaling_study.ipynb), [own topology](own_topology.ipynb),
# [proving a mapping](proving_a_mapping.ipynb).
