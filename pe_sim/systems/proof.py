"""The proof of a plan: which small model and which steps are run on a system, and what came out of them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pe_sim.config.model import ModelConfig
from pe_sim.config.plan import Degrees, ParallelPlan
from pe_sim.config.step import Decode, Prefill, Step
from pe_sim.config.system import SystemConfig
from pe_sim.engine.engines import DEFAULT_ENGINE
from pe_sim.errors import InputError
from pe_sim.graph.parts import attention_shape
from pe_sim.graph.shares import OperatorShare, head_share
from pe_sim.mapping.workflow import Workflow
from pe_sim.numeric.arrays import PlacementError
from pe_sim.numeric.proof import Proof, describe_step, random_tokens
from pe_sim.numeric.reference import run_reference
from pe_sim.numeric.scaled_down import scaled_down
from pe_sim.numeric.state_dict import Source, random_weights, read_weights
from pe_sim.numeric.tokens import read_token_types, read_tokens
from pe_sim.numeric.verify import TOLERANCE, Verdict, verdict_of
from pe_sim.numeric.weights import ModelWeights
from pe_sim.systems.deployment import Deployment
from pe_sim.systems.execution import execute_script
from pe_sim.systems.reporting import system_report
from pe_sim.systems.simulation import SystemRun, prepared, run_system

_LENGTHS = (5, 1, 3, 4, 2)  # ragged on purpose


def prove_system(
    model: ModelConfig,
    system: SystemConfig,
    plan: ParallelPlan,
    workflow: Workflow,
    *,
    weights: Source | None,
    seed: int,
) -> Proof:
    """Executes every proof step under the plan and compares it with the reference.

    Args:
        weights: of `model`; None: a scaled-down random model of its family is taken instead.

    Raises:
        InputError: the plan does not fit the system or the model, or the weights do not fit the model.
    """
    deployment = _deployment(model, system, plan, workflow)
    if weights is None:
        model = small_model(model, system, plan, workflow, deployment)
        weights = random_weights(model, seed)
    read = read_weights(model, weights)
    verdicts, shortage = dict[str, Verdict](), None
    for step in proof_steps(model, deployment, workflow.groups):
        run = run_system(model, system, step, plan, workflow, DEFAULT_ENGINE, allow_overflow=True)
        verdicts[describe_step(step)] = _verdict(run, model, step, read, seed)
        shortage = shortage or system_report(run).shortage
    used = [system.arrays[rank] for rank in deployment.used]
    where = f"{system.name} with {plan.name} on {len(used)} array{'s' if len(used) > 1 else ''}"
    return Proof(model, where, sum(array.num_pes for array in used), workflow.name, verdicts, shortage)


def _deployment(model: ModelConfig, system: SystemConfig, plan: ParallelPlan, workflow: Workflow) -> Deployment:
    """Of a step with a sequence for every share of the batch: what can be told of a plan before its steps are known."""
    shares = len(plan.pipelines) or plan.dp
    return prepared(model, system, Prefill(shares, prompt_len=1), plan, workflow)[1]


def _verdict(run: SystemRun, model: ModelConfig, step: Step, weights: ModelWeights, seed: int) -> Verdict:
    shape = attention_shape(model, step)
    ids = read_tokens(random_tokens(model, step, seed), model, shape)
    types = read_token_types(None, model, shape)
    try:
        done = execute_script(run.timed.script, weights, ids, token_types=types)
    except PlacementError as error:
        return Verdict(float("nan"), TOLERANCE, False, None, None, fault=str(error))
    timed = {tag: use for tag, use in system_report(run).traffic.items() if use.messages}
    return verdict_of(done, run_reference(model, weights, ids, types), traffic=timed)


def proof_steps(model: ModelConfig, deployment: Deployment, num_groups: int) -> Iterator[Step]:
    """Steps that exercise a plan: more sequences than shares of the batch, ragged, with and without a cache.

    Args:
        num_groups: of PEs in an array, each of which wants a sequence of every part of the step.
    """
    lines = deployment.pipelines
    inner = max(degrees.dp for line in lines for stage in line.stages for degrees in stage.degrees)
    parts = max(line.microbatches for line in lines) if num_groups > 1 else 1
    least = len(lines) * inner * num_groups * parts
    lengths = [_LENGTHS[index % len(_LENGTHS)] for index in range(least + 2)]
    room = model.max_position_embeddings
    yield Prefill(prompt_len=[min(length, room) for length in lengths], logits="all")
    if model.has_lm_head:
        yield Decode(context_len=[min(length * 3, room - 1) for length in lengths])
        yield Decode(least, min(11, room - 1))
    if model.has_kv_cache:
        yield Prefill(least, prompt_len=min(3, room), context_len=min(4, room - 3), causal="full")


def small_model(
    model: ModelConfig, system: SystemConfig, plan: ParallelPlan, workflow: Workflow, deployment: Deployment
) -> ModelConfig:
    """A small model of the family whose heads, FFN and layers the plan fits, with uneven shares where it can have them.

    Plans and workflows that speak of a number of layers keep it.
    """
    stages = [stage for line in deployment.pipelines for stage in line.stages]
    shares = sorted({degrees.tp for stage in stages for degrees in (*stage.degrees, *_heads_of(deployment))})
    most_pes = max(system.arrays[rank].num_pes for rank in deployment.used)
    longest = max(len(line.stages) for line in deployment.pipelines)
    layers = model.num_layers if _names_layers(plan, workflow) else min(model.num_layers, max(3, longest + 1))
    small = scaled_down(model, most_pes, num_layers=layers)
    kv_heads, per_kv = _heads(model, small, shares)
    head_dim, ratio = small.head_dim, model.q_size != model.hidden_size
    most = shares[-1]
    return replace(
        small,
        num_kv_heads=kv_heads,
        num_heads=kv_heads * per_kv,
        hidden_size=(kv_heads * per_kv + ratio) * head_dim,
        ffn_size=max(small.ffn_size, most * 2 + 1),
        vocab_size=max(small.vocab_size, min(2 * most + 3, model.vocab_size)),
    )


def _heads_of(deployment: Deployment) -> tuple[Degrees, ...]:
    return () if deployment.head is None else (deployment.head,)


def _names_layers(plan: ParallelPlan, workflow: Workflow) -> bool:
    """Whether a plan or a workflow was written for a number of layers."""
    named = any(stage.num_layers for line in plan.pipelines for stage in line.stages)
    return bool(named or plan.num_layers or plan.layers or isinstance(plan.partition, tuple) or workflow.num_layers)


def _heads(model: ModelConfig, small: ModelConfig, shares: Iterable[int]) -> tuple[int, int]:
    """KV heads and query heads to each: the fewest that every number of shares fits, uneven ones first.

    One kv head stays one, and one query head to each stays one, as in a model that is scaled down for one array.
    """
    ways = [of for of in shares if of > 1]
    fitting: list[tuple[bool, int, int]] = []
    for kv_heads in range(min(2, model.num_kv_heads), model.num_kv_heads + 1):
        for per_kv in range(min(2, model.heads_per_kv_head), model.heads_per_kv_head + 1):
            heads = replace(small, num_kv_heads=kv_heads, num_heads=kv_heads * per_kv)
            if all(_fits(heads, of) for of in ways):
                enough = kv_heads >= small.num_kv_heads and per_kv >= small.heads_per_kv_head
                fitting.append((not enough, kv_heads, per_kv))
    least = min(fitting, key=lambda each: (each[1] * each[2], each))
    most = 2 * max(least[1] * least[2], small.num_heads)
    uneven = [each for each in fitting if _is_uneven(each[1], each[2], ways) and each[1] * each[2] <= most]
    _, kv_heads, per_kv = min(uneven or fitting, key=lambda each: (each[0], each[1] * each[2], each))
    return kv_heads, per_kv


def _fits(heads: ModelConfig, of: int) -> bool:
    try:
        head_share(heads, OperatorShare(0, of))
    except InputError:
        return False
    return True


def _is_uneven(kv_heads: int, per_kv: int, ways: Iterable[int]) -> bool:
    return any(kv_heads % of if of <= kv_heads else per_kv % (of // kv_heads) for of in ways)
