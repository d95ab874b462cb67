"""Hypothesis draws small models, steps, systems, plans and workflows that fit each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from hypothesis import strategies as st

from pe_sim.config.models.model import ModelConfig
from pe_sim.config.plans.plan import PARTITIONS, Degrees, ParallelPlan, PipelinePlan, StagePlan
from pe_sim.config.step import Decode, Prefill, Step
from pe_sim.config.systems.system import SystemConfig
from pe_sim.mapping.workflow import WORKFLOWS, Workflow
from tests.numeric.cases import bert, gpt2, llama
from tests.numeric.test_random_programs import workflows as any_workflow
from tests.systems.cases import LINK_KINDS, SHARED_WORKFLOWS, arrays_like, system_of

MOST = 8  # arrays


@dataclass(frozen=True)
class Case:
    """What is simulated."""

    model: ModelConfig
    system: SystemConfig
    plan: ParallelPlan
    step: Step
    workflow: Workflow


@st.composite
def models(draw) -> ModelConfig:
    """Of every family; sizes that divide by nothing."""
    family = draw(st.sampled_from(["llama", "llama", "llama", "gpt2", "bert"]))
    layers, ffn, words = draw(st.integers(1, 4)), draw(st.integers(1, 40)), draw(st.integers(1, 41))
    if family == "llama":
        kv_heads = draw(st.integers(1, 6))
        model = llama(
            num_hidden_layers=layers,
            hidden_size=draw(st.integers(1, 24)),
            intermediate_size=ffn,
            num_key_value_heads=kv_heads,
            num_attention_heads=kv_heads * draw(st.integers(1, 4)),
            head_dim=2 * draw(st.integers(1, 3)),
            vocab_size=words,
            attention_bias=draw(st.booleans()),
            mlp_bias=draw(st.booleans()),
            tie_word_embeddings=draw(st.booleans()),
            architectures=[draw(st.sampled_from(["LlamaForCausalLM", "LlamaForCausalLM", "LlamaModel"]))],
        )
        return replace(model, qkv_bias=not model.attention_bias and draw(st.booleans()))
    heads, head_dim = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    if family == "gpt2":
        return gpt2(n_layer=layers, n_head=heads, n_embd=heads * head_dim, n_inner=ffn, vocab_size=words)
    sizes = {"hidden_size": heads * head_dim, "intermediate_size": ffn, "vocab_size": words}
    return bert(num_hidden_layers=layers, num_attention_heads=heads, **sizes)


@st.composite
def steps(draw, model: ModelConfig) -> Step:
    """Ragged batches of every phase."""
    batch = draw(st.integers(1, 5))
    new = draw(st.lists(st.integers(1, 6), min_size=batch, max_size=batch))
    context = draw(st.lists(st.integers(0, 9), min_size=batch, max_size=batch))
    if not model.has_kv_cache:
        return Prefill(batch, prompt_len=new)
    if model.has_lm_head and draw(st.booleans()):
        return Decode(batch, context_len=context)
    logits, causal = draw(st.sampled_from(["last", "all"])), draw(st.sampled_from(["skip", "full"]))
    return Prefill(batch, prompt_len=new, context_len=context, logits=logits, causal=causal)


def shares_that_fit(model: ModelConfig, most: int) -> list[int]:
    """Degrees of tensor parallelism that heads, FFN columns and words go over."""
    kv_heads, heads = model.num_kv_heads, model.num_heads
    words = model.vocab_size if model.has_kv_cache else model.ffn_size
    return [
        ways
        for ways in range(1, most + 1)
        if (ways <= kv_heads or (ways % kv_heads == 0 and ways <= heads)) and ways <= min(model.ffn_size, words)
    ]


@st.composite
def degrees_of(draw, model: ModelConfig, num_arrays: int) -> Degrees:
    """Degrees that multiply to so many arrays."""
    tp = draw(st.sampled_from([ways for ways in shares_that_fit(model, num_arrays) if num_arrays % ways == 0]))
    rest = num_arrays // tp
    dp = draw(st.sampled_from([ways for ways in range(1, rest + 1) if rest % ways == 0]))
    return Degrees(dp, rest // dp, tp, draw(st.booleans()))


@st.composite
def microbatches(draw) -> int | None:
    """Parts at most."""
    return draw(st.sampled_from([None, 1, 2, 3, 7]))


@st.composite
def bounds(draw, layers: int, stages: int):
    """A method, or bounds."""
    if draw(st.booleans()):
        return draw(st.sampled_from([method for method in PARTITIONS if method != "uniform_ceil"]))  # may be refused
    return (0, *cuts_of(draw, layers, stages), layers)


def cuts_of(draw, layers: int, stages: int) -> list[int]:
    """First layers of all stages but the first."""
    inner = st.lists(st.integers(1, max(1, layers - 1)), min_size=stages - 1, max_size=stages - 1, unique=True)
    return sorted(draw(inner)) if stages > 1 else []


@st.composite
def heads_of(draw, model: ModelConfig, num_arrays: int) -> Degrees | None:
    """Degrees of the LM head, or none of its own."""
    return draw(degrees_of(model, num_arrays)) if draw(st.integers(0, 3)) == 0 else None


@st.composite
def plans_by_degrees(draw, model: ModelConfig, step: Step) -> ParallelPlan:
    """dp, tp, pp and cp."""
    dp = draw(st.integers(1, min(step.batch_size, MOST)))
    pp = draw(st.integers(1, min(model.num_layers, MOST // dp)))
    per_stage = draw(st.integers(1, MOST // (dp * pp)))
    inside = draw(degrees_of(model, per_stage))
    return ParallelPlan(
        dp=dp,
        tp=inside.tp,
        pp=pp,
        cp=per_stage // inside.tp,
        partition=draw(bounds(model.num_layers, pp)),
        microbatches=draw(microbatches()),
        head=draw(heads_of(model, per_stage)),
        split_vocabulary=draw(st.booleans()),
    )


@st.composite
def plans_by_layer(draw, model: ModelConfig) -> ParallelPlan:
    """Degrees of every layer."""
    pp = draw(st.integers(1, model.num_layers))
    per_stage = draw(st.integers(1, MOST // pp))
    return ParallelPlan(
        pp=pp,
        layers=tuple(draw(degrees_of(model, per_stage)) for _ in range(model.num_layers)),
        partition=draw(bounds(model.num_layers, pp)),
        microbatches=draw(microbatches()),
        head=draw(heads_of(model, per_stage)),
        split_vocabulary=draw(st.booleans()),
    )


@st.composite
def plans_by_rank(draw, model: ModelConfig, step: Step) -> ParallelPlan:
    """Pipelines of different stages with arrays in any order; a pipeline may come by an array twice."""
    free = draw(st.permutations(range(MOST)))
    lines: list[PipelinePlan] = []
    used = 0
    for line in range(draw(st.integers(1, min(step.batch_size, 3)))):
        left = (MOST - used) // (3 - line)
        stages = draw(st.integers(1, min(model.num_layers, left)))
        cuts = [0, *cuts_of(draw, model.num_layers, stages), model.num_layers]
        made: list[StagePlan] = []
        for first, last in pairwise(cuts):
            if made and draw(st.integers(0, 5)) == 0:
                ranks = tuple(draw(st.permutations(made[0].arrays)))
            else:
                count = draw(st.integers(1, max(1, left // stages)))
                ranks = tuple(free[used : used + count])
                used += count
            each = draw(st.booleans())
            degrees = tuple(draw(degrees_of(model, len(ranks))) for _ in range(last - first if each else 1))
            made.append(StagePlan(ranks, first, last - first, degrees * (1 if each else last - first)))
        lines.append(PipelinePlan(tuple(made)))
    same = len({len(line.stages[-1].arrays) for line in lines}) == 1
    head = draw(heads_of(model, len(lines[0].stages[-1].arrays))) if same else None
    return ParallelPlan(pipelines=tuple(lines), microbatches=draw(microbatches()), head=head)


def plans(model: ModelConfig, step: Step):
    """Of all three forms."""
    return st.one_of(plans_by_degrees(model, step), plans_by_layer(model), plans_by_rank(model, step))


def wanted_arrays(plan: ParallelPlan) -> int | None:
    """Arrays that a plan of degrees multiplies to; None where it names ranks."""
    if plan.pipelines:
        return None
    per_stage = plan.layers[0].num_arrays if plan.layers else plan.cp * plan.tp
    return plan.pp * plan.dp * per_stage


@st.composite
def systems(draw, plan: ParallelPlan, per_array: int) -> tuple[SystemConfig, tuple[int, ...]]:
    """A system that a plan fits, and the ranks that it leaves unused; arrays have multiples of `per_array` PEs."""
    wanted = wanted_arrays(plan)
    dead: tuple[int, ...] = ()
    idle: tuple[int, ...] = ()
    count = MOST
    if wanted is not None:
        out = draw(st.integers(0, 2)) if wanted < MOST else 0
        count = wanted + out
        ranks = tuple(sorted(draw(st.permutations(range(count)))[:out]))
        split = draw(st.integers(0, out))
        dead, idle = ranks[:split], ranks[split:]
    kinds = [arrays_like(per_array * draw(st.integers(1, 4)))]
    if draw(st.booleans()):
        kinds.append(arrays_like(per_array * draw(st.integers(1, 5))))
    if draw(st.integers(0, 3)) == 0:
        kinds.append(arrays_like(per_array * draw(st.integers(2, 4)), kind=draw(st.sampled_from(["mesh", "ring"]))))
    if per_array == 1 and draw(st.integers(0, 3)) == 0:
        pes = draw(st.integers(3, 6))
        kinds.append(arrays_like(pes, dead_pes=(draw(st.integers(0, pes - 1)),)))
    arrays = tuple(draw(st.sampled_from(kinds)) for _ in range(count))
    return system_of(arrays, draw(st.sampled_from(LINK_KINDS)), dead), idle


@st.composite
def workflows(draw, plan: ParallelPlan) -> Workflow:
    """Any that a plan of several arrays takes."""
    if draw(st.booleans()):
        return WORKFLOWS[draw(st.sampled_from(SHARED_WORKFLOWS))]
    drawn = draw(any_workflow())
    workflow = WORKFLOWS["workflow-1"] if drawn.pipelined else drawn
    degrees = (*plan.layers, *(one for line in plan.pipelines for stage in line.stages for one in stage.degrees))
    shares_tokens = plan.cp > 1 or any(one.cp > 1 for one in degrees)
    return replace(workflow, groups=1) if shares_tokens else workflow


@st.composite
def cases(draw) -> Case:
    """A step of a model on a system under a plan and a workflow."""
    model = draw(models())
    step = draw(steps(model))
    plan = draw(plans(model, step))
    workflow = draw(workflows(plan))
    system, idle = draw(systems(plan, workflow.groups))
    names = draw(st.lists(st.sampled_from(["q", "k", "v", "o", "up", "down"]), max_size=2, unique=True))
    matrices = tuple((name, draw(st.sampled_from(["row", "col"]))) for name in names)
    return Case(model, system, replace(plan, unused=idle, matrices=matrices), step, workflow)
