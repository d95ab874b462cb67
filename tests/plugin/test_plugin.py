"""A package from outside adds to every registry; the conformance tests take its entries as they take built-in ones."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import pe_sim as ps
from pe_sim.cli import cli
from pe_sim.config.files.loading import load_mapping, resolve
from pe_sim.config.models.load import detect_dialect
from pe_sim.config.plans.load import load_plan
from pe_sim.config.plans.schema import plan_to_dict
from pe_sim.engine.engines import ENGINES
from pe_sim.errors import InputError
from pe_sim.graph.families import FAMILIES, build_graph
from pe_sim.graph.operators import AttentionOperator, Linear
from pe_sim.mapping.distributions import DISTRIBUTIONS
from pe_sim.mapping.workflow import load_workflow
from pe_sim.network.collectives.algorithms import ALGORITHMS
from pe_sim.network.topology.kinds import KINDS, build_topology
from pe_sim.registry import installed
from tests.config.plans import test_plan_dialects as plan_tests
from tests.graph import test_families as family_tests
from tests.mapping import test_distributions as distribution_tests
from tests.network import networks
from tests.network import test_algorithms as algorithm_tests
from tests.network import test_topologies as topology_tests

PACKAGE = Path(__file__).parent / "outside"
ENTRIES = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
SMALL = {
    "model_type": "parallel",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 50,
}
LONG_SIDE = {"base": "megatron", "layers": [{"qkv": "long-side", "gate_up": "long-side", "down": "long-side"}]}
ARRAYS = {
    "schema_version": 1,
    "arrays": [{"array": "bus-tree-64", "count": 4}],
    "links": {"kind": "ring", "link": {"bytes_per_cycle": 16, "latency_cycles": 5}},
    "floorplan": {"array_pitch_mm": 20, "mm_per_cycle": 10},
}


def install(folder, name, entries):
    """What an installer writes of a package whose module lies elsewhere."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    lines = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in of.items()) for group, of in entries.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of installed packages, and the modules of the one that is here."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(PACKAGE))
    installed.cache_clear()
    yield tmp_path
    installed.cache_clear()


@pytest.fixture
def outside(packages):
    """The package that is here, installed."""
    install(packages, "pe-sim-outside", ENTRIES)


@pytest.fixture
def wheel(outside, monkeypatch):
    """The section of a wheel, where the tests of all kinds look for it."""
    monkeypatch.setitem(networks.SECTIONS, "wheel", {"link": networks.LINK})
    return networks.array_of


def refusal(call, *given, **more):
    with pytest.raises(InputError) as caught:
        call(*given, **more)
    return str(caught.value)


# --------------------------------------------------------------------------------------------- what it adds can be used
@pytest.mark.usefixtures("outside")
def test_a_model_family_passes_the_tests_of_all_families():
    model = ps.load_model(SMALL)
    assert model.family == "parallel"
    for step in filter(lambda step: family_tests.can_do(model, step), family_tests.STEPS):
        graph = build_graph(model, step)
        family_tests.test_the_step_is_a_dag_in_program_order(model, step, graph)
        family_tests.test_blocks_are_closed_but_for_the_stream(model, step, graph)
        family_tests.test_layers_have_what_workflows_speak_of(model, step, graph)
        family_tests.test_rows_flops_and_bytes(model, step, graph)
    family_tests.test_parameters_are_those_of_the_graph_and_of_the_weights(model)
    family_tests.test_more_tokens_are_more_work(model)
    family_tests.test_steps_a_family_cannot_do_are_refused(model)
    family_tests.test_every_family_can_be_proven()
    assert [*FAMILIES] == ["bert", "gpt2", "llama", "parallel"]


@pytest.mark.parametrize("num_pes", networks.sizes_of("wheel"))
def test_a_topology_passes_the_tests_of_all_kinds(wheel, num_pes):
    topology_tests.test_conformance("wheel", num_pes)
    topology_tests.test_the_registry_the_schema_and_these_tests_know_the_same_kinds()
    assert networks.counted_diameter(build_topology(wheel("wheel", num_pes))) == KINDS["wheel"].diameter(
        topology_tests.Plan(num_pes, None, None)
    )


@pytest.mark.usefixtures("wheel")
def test_a_topology_has_its_form_as_text_and_its_size():
    topology_tests.test_round_trip_and_determinism("wheel")
    topology_tests.test_channels_grow_in_proportion_to_the_pes("wheel")


@pytest.mark.parametrize("kind", ["wheel", "mesh"])
def test_a_collective_passes_the_tests_of_all_algorithms(wheel, kind):
    assert "by_lowest" in ALGORITHMS["broadcast"]
    algorithm_tests.test_every_pe_of_every_scope_gets_something_and_nobody_else(kind)
    algorithm_tests.test_the_busiest_channel_cannot_finish_before_it_has_carried_all(kind)
    array = wheel(kind, 8, collectives={"broadcast": "by_lowest"})
    found = {engine: ps.collective("broadcast", array, 4096, engine=engine).cycles for engine in ENGINES.built_in}
    assert len(set(found.values())) == 1
    assert found["fast"] > ps.collective("broadcast", wheel(kind, 8), 4096).cycles  # the best, of those built in


@pytest.mark.usefixtures("outside")
def test_a_distribution_passes_the_tests_of_all_distributions():
    distribution = DISTRIBUTIONS["long-side"]
    distribution_tests.test_names_and_summaries("long-side")
    for operator in distribution_tests.OPERATORS.values():
        if isinstance(operator, Linear):
            distribution_tests.test_one_placement_for_every_input_and_output(distribution, operator)
            distribution_tests.test_every_placement_can_be_reached_and_left(distribution, operator)
            distribution_tests.test_what_fits_is_found(distribution, operator)
        elif isinstance(operator, AttentionOperator):
            distribution_tests.test_what_does_not_fit_is_refused_with_what_does("long-side", operator)


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("sample", [{"tensor": 2}, {"tensor": 4, "dp": 2}])
def test_a_dialect_of_plans_passes_the_tests_of_all_dialects(monkeypatch, sample):
    """A file may have keys of our own form beside one that this does not have."""
    monkeypatch.setattr(plan_tests, "SAMPLES", {"tensor-list": sample})
    assert load_plan(sample).tp == sample["tensor"]
    plan_tests.test_a_plan_survives_our_own_form("tensor-list")
    plan_tests.test_an_unknown_key_is_refused_by_name("tensor-list")
    plan_tests.test_reading_does_not_change_what_is_read("tensor-list")
    own = plan_to_dict(load_plan(sample))
    assert plan_tests.detect_plan_dialect(own).name == "pe-sim plan"


@pytest.mark.usefixtures("outside")
def test_a_dialect_of_models():
    raw = {"family": "parallel", "width": 32, "depth": 2}
    assert detect_dialect(raw).name == "short-names"
    assert (ps.load_model(raw).family, ps.load_model(raw).num_layers) == ("parallel", 2)


def test_all_of_it_at_once_in_both_engines_and_with_real_numbers(files):
    array, workflow = ps.load_array(files["array"]), load_workflow(files["workflow"])
    for step in (ps.Decode(2, context_len=5), ps.Prefill(1, prompt_len=4)):
        reports = [ps.simulate(SMALL, array, step, workflow=workflow, engine=name).to_dict() for name in ENGINES]
        assert len(reports) == 3
        for report in reports:
            report.pop("engine", None)
        assert reports[0] == reports[1] == reports[2]
    assert ps.verify(SMALL, array, workflow).holds


@pytest.mark.usefixtures("outside")
def test_several_arrays_on_links_from_outside_with_a_plan_from_outside():
    system = ps.load_system({**ARRAYS, "links": {**ARRAYS["links"], "kind": "wheel"}})
    step, plan = ps.Decode(2, context_len=5), {"tensor": 4}
    found = [ps.simulate_system(SMALL, system, step, plan, engine=name).latency_cycles for name in ("event", "fast")]
    assert found[0] == found[1] > 0


# ---------------------------------------------------------------------------------------------------- the command line
@pytest.fixture
def files(wheel, tmp_path):
    """A model's, an array's and a workflow's file that name what comes from outside."""
    raw = load_mapping(resolve("arrays", "bus-tree-256"))
    network = {"kind": "wheel", "link": networks.LINK, "collectives": {"broadcast": "by_lowest"}}
    made = {"model": SMALL, "array": {**raw, "num_pes": 6, "network": network}, "workflow": LONG_SIDE}
    for name, content in made.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return {name: str(tmp_path / f"{name}.yaml") for name in made}


def test_the_command_line_runs_proves_and_lists_them(files):
    def run(*words):
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 0, result.output
        return result.output

    with_array = ("--array", files["array"])
    assert "cycles" in run("run", files["model"], *with_array, "--workflow", files["workflow"], "--context", "5")
    assert "proven" in run("verify", files["model"], *with_array, "--workflow", files["workflow"])
    assert "by_lowest" in run("collective", "broadcast", *with_array, "--bytes", "64", "--algorithm", "all")
    picture = Path(files["array"]).with_suffix(".png")
    assert "wheel, 6 PEs" in run("topology", files["array"], "--png", str(picture))
    assert picture.stat().st_size > 0


@pytest.mark.slow
def test_pip_installs_it_and_a_process_finds_it(files, tmp_path):
    """As a user does: the entry points of the table in pyproject.toml, by the build backend that it names."""
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    source = tmp_path / "source"
    subprocess.run(["cp", "-r", str(PACKAGE), str(source)], check=True)
    subprocess.run([*pip, "--target", str(target), str(source)], check=True)
    words = ["verify", files["model"], "--array", files["array"], "--workflow", files["workflow"]]
    environment = {**os.environ, "PYTHONPATH": str(target)}
    command = [sys.executable, "-m", "pe_sim", *words]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "proven" in result.stdout


# --------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.usefixtures("outside")
def test_did_you_mean_counts_them_in(tmp_path):
    mesh = load_mapping(resolve("arrays", "mesh-256"))
    assert "did you mean 'wheel'?" in refusal(ps.load_array, "mesh-256", overrides={"network.kind": "weel"})
    broadcast = {**mesh["network"], "collectives": {"broadcast": "by_lowst"}}
    assert "did you mean 'by_lowest'?" in refusal(ps.load_array, {**mesh, "network": broadcast})
    for field in ("qkv", "down"):
        path = tmp_path / "slip.yaml"
        path.write_text(yaml.safe_dump({"base": "megatron", "layers": [{field: "long-sid"}]}), encoding="utf-8")
        assert "did you mean 'long-side'?" in refusal(load_workflow, path)
    assert "did you mean 'parallel'?" in refusal(ps.load_model, {**SMALL, "model_type": "paralel"})
    assert "did you mean 'patient'?" in refusal(ps.simulate, "gpt2", "mesh-256", ps.Decode(1, 4), engine="patiet")
    assert "tensor-list (has tensor, and dp if wanted)" in refusal(load_plan, {"nothing": 1})


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("no_such_module:THING", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("pe_sim_outside.others:NOTHING", "AttributeError: module 'pe_sim_outside.others' has no attribute 'NOTHING'"),
        ("pe_sim_outside.others:by_lowest", "AttributeError: 'function' object has no attribute 'name'"),
        ("pe_sim_outside.others:LONG_SIDE", "ValueError: it calls itself 'long-side'"),
        ("leaves:THING", "SystemExit: 3"),
    ],
)
def test_a_package_that_cannot_be_used_is_named(packages, value, why):
    (packages / "leaves.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    install(packages, "broken-one", {"pe_sim.distributions": {"mine": value}})
    assert refusal(DISTRIBUTIONS.get, "mine") == (
        "package broken-one: entry point mine of pe_sim.distributions: it cannot be used: " + why + "\n"
        f"  given:    {value!r}\n"
        "  hint:     mend the package, or uninstall it"
    )
    assert DISTRIBUTIONS["row"].name == "row"


@pytest.mark.usefixtures("files")
def test_the_command_line_names_it_too(packages, files):
    install(packages, "broken-one", {"pe_sim.models": {"mine": "no_such_module"}})
    installed.cache_clear()
    model = packages / "mine.yaml"
    model.write_text(yaml.safe_dump({**SMALL, "model_type": "mine"}), encoding="utf-8")
    result = CliRunner().invoke(cli, ["run", str(model), "--array", "bus-tree-64"])
    assert result.exit_code == 2
    assert "package broken-one: entry point mine of pe_sim.models: it cannot be used" in result.output
    assert "Traceback" not in result.output


def test_a_family_that_lacks_a_part_is_named_with_it(packages):
    (packages / "half.py").write_text("read_config = len\n", encoding="utf-8")
    install(packages, "half-one", {"pe_sim.models": {"half": "half"}})
    assert "AttributeError: module 'half' has no attribute 'build_graph'" in refusal(FAMILIES.get, "half")


@pytest.mark.parametrize(
    ("registry", "group", "name", "built_in"),
    [
        (DISTRIBUTIONS, "pe_sim.distributions", "row", True),
        (KINDS, "pe_sim.topologies", "mesh", True),
        (ALGORITHMS["all_gather"], "pe_sim.collectives", "all_gather.ring", True),
        (DISTRIBUTIONS, "pe_sim.distributions", "mine", False),
    ],
)
def test_two_of_one_name_are_refused_where_packages_are_asked(packages, registry, group, name, built_in):
    """What is built in goes on as ever: it is found without looking at packages."""
    install(packages, "first-one", {group: {name: "pe_sim_outside.others:LONG_SIDE"}})
    if not built_in:
        install(packages, "second-one", {group: {name: "pe_sim_outside.others:LONG_SIDE"}})
    short = name.rpartition(".")[2]
    message = refusal(registry.get, "nothing of this name")
    assert f"of {group}: {short!r} is there already, from " in message
    assert ("pe-sim itself" in message) == built_in
    assert message.startswith("package first-one: " if built_in else "package ")
    assert message.endswith("hint:     rename the entry point, or uninstall its package")
    assert refusal(list, registry) == message
    if built_in:
        assert registry[short] is registry.built_in[short]


def test_a_way_of_several_programs_is_a_name_that_is_taken(packages):
    install(packages, "first-one", {"pe_sim.collectives": {"all_reduce.ring": "pe_sim_outside.others:BY_LOWEST"}})
    change = {"network.collectives.all_reduce": "rnig"}
    assert "'ring' is there already, from pe-sim itself" in refusal(ps.load_array, "mesh-256", overrides=change)


def test_what_is_built_in_never_looks_at_packages():
    """Neither when it starts nor when it runs, on a bus and on a graph, for one array and for several."""
    code = """
import pe_sim as ps
from pe_sim.registry import installed
for array in ("bus-tree-64", "mesh-256"):
    ps.simulate("gpt2", array, ps.Decode(1, 64), workflow="megatron")
ps.simulate_system("gpt2", ps.load_system(%s), ps.Decode(2, 64), {"tp": 4})
ps.collective("all-reduce", "mesh-256", 64)
assert installed.cache_info().misses == 0, installed.cache_info()
"""
    subprocess.run([sys.executable, "-c", code % ARRAYS], check=True)
