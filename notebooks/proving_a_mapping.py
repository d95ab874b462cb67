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
# # Proving a mapping
#
# A mapping that is fast but computes something else is worth nothing. So the very graph that is timed can be executed
# on real numbers: every PE holds its shards only, every message is really copied, every reduction really added.

# %%
import numpy as np

import pe_sim as ps

ps.use_style()
array = ps.load_array("bus-tree-64", overrides={"num_pes": 24})
array

# %% [markdown]
# ## The proof
# 24 PEs divide neither heads nor matrices evenly, on purpose. The model is scaled down to a few layers of random
# weights and keeps its structure: grouped heads, gated FFN, rotary positions. Steps of prefill and decode with ragged
# batches are executed and compared, tensor by tensor, with the same model on no array at all; and the traffic that was
# really moved with the simulated one.

# %%
ps.verify("llama-3.2-1b", array, workflow="workflow-2")

# %% [markdown]
# ## A mapping of your own
# [by_layer.yaml](by_layer.yaml) starts from Megatron's mapping, lets layers 1 and 2 attend by token, and cuts their
# output projections the other way round. Where a result is not distributed as the next operator wants it, the mapper
# inserts the messages that change it; that these are right, too, is what is proved.

# %%
own = ps.load_workflow("by_layer.yaml")
own

# %%
ps.verify("llama-3.2-1b", array, workflow=own)

# %% [markdown]
# What a search finds gets the same treatment.

# %%
found = ps.search("llama-3.2-1b", array, ps.Decode(context_len=512), max_simulations=4)
ps.verify("llama-3.2-1b", array, workflow=found.workflow)

# %% [markdown]
# ## Real numbers
# `ps.execute` gives the logits themselves. Weights are a Hugging Face state dict or a safetensors file; here they are
# random, of the scaled-down model.

# %%
from pe_sim.numeric.proof import scaled_down
from pe_sim.numeric.state_dict import random_weights

small = scaled_down(ps.load_model("llama-3.2-1b"), num_pes=24)
weights = random_weights(small, seed=0)
step = ps.Decode(batch_size=1, context_len=7)
tokens = [[3, 14, 15, 9, 2, 6, 5, 35]]  # the last one is new, the others fill the cache
done = ps.execute(small, array, step, own, weights=weights, tokens=tokens)
done

# %% [markdown]
# One PE has nothing to distribute: what it computes is the reference. The same next token, and logits that differ by
# rounding only, since sums are added in another order.

# %%
single = ps.load_array("bus-tree-64", overrides={"num_pes": 1, "name": "one PE"})
alone = ps.execute(small, single, step, own, weights=weights, tokens=tokens)
bool(np.allclose(done.logits, alone.logits, atol=1e-4)), done.best_tokens.tolist() == alone.best_tokens.tolist()

# %% [markdown]
# ## The same traffic
# Message for message and byte for byte: what was moved is what `ps.simulate` counts for this step.

# %%
timed = ps.simulate(small, array, step, own)
moved = {tag: (use.messages, use.bytes) for tag, use in done.traffic.items()}
same = moved == {tag: (use.messages, use.bytes) for tag, use in timed.traffic.items()}
same
