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
# # Comparing workflows
#
# Llama-3.2-1B on 1,024 PEs. How should its matrices and its attention be distributed, and why? The answer for a token
# is another one than that for a prompt.

# %%
import pe_sim as ps

ps.use_style()
names = ["workflow-1", "workflow-2", "alternating", "megatron", "all-row", "all-col"]
decode = ps.compare("llama-3.2-1b", "bus-tree-1024", ps.Decode(context_len=2048), names)
decode

# %% [markdown]
# ## Where the time goes
# Each bar is a critical path: paler colours are computation, striped ones messages. The computation is nearly the same
# for all, for every workflow reads the same weights from the same memories. What differs is striped.

# %%
ax = decode.plot()

# %% [markdown]
# ## Why the best one is the best
# Two workflows side by side, operator by operator; a negative difference is what the first one saves. With attention by
# head 32 PEs share a head, and their partial scores are reduced and sent back as a `multicast`, which attention by
# token does without. It pays with a few broadcasts and reductions of whole vectors.

# %%
decode.explain("workflow-2", "megatron")

# %% [markdown]
# A workflow is a distribution for each operator, nothing more. `row` cuts the outputs of a matrix, `col` its inputs
# (`row` is what Megatron calls column parallel).

# %%
ps.load_workflow("workflow-2")

# %% [markdown]
# ## A prompt in place of a token
# In the prefill hundreds of rows meet every weight. What is read once is now used often, the vectors that travel are as
# many as there are rows, and the order of the workflows turns around.

# %%
prefill = ps.compare("llama-3.2-1b", "bus-tree-1024", ps.Prefill(prompt_len=256), names)
ax = prefill.plot()

# %% [markdown]
# ## One workflow for the prompt, another for the tokens?
# Both phases share the weights and the cache. If they are mapped differently, something has to move in between, or to
# be held twice. All pairs, with the switch counted:

# %%
ps.best_switch("llama-3.2-1b", "bus-tree-1024", 256, 128, candidates=["workflow-2", "megatron", "all-row"])

# %% [markdown]
# With so short a cache attention by head is fine for the tokens, too, and a switch would only cost. Where the best pair
# has two workflows, the verdict says what the switch saves.
#
# ## Nobody has to guess
# The search chooses the distribution of every operator of every layer by itself, and says how far from the optimum the
# result can be at most.

# %%
found = ps.search("llama-3.2-1b", "bus-tree-1024", ps.Decode(context_len=2048), max_simulations=8)
found

# %%
found.explain("workflow-2")

# %% [markdown]
# `found.save("best.yaml")` writes it as a workflow file, which every command takes by its path.
