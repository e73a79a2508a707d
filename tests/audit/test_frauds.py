"""The table of frauds in docs/audit.md: a test holds each of its rows, and each has an honest twin."""

from __future__ import annotations

import ast
import re

import pytest
from places import ROOT, TESTS

ISOLATION = "execution/jobs/test_isolation.py"
SUBMISSION = "end_to_end/test_submission.py"
ENDS = "end_to_end/test_ends.py"
PROBES = "audit/test_probes.py"
AUDIT = "audit/test_audit.py"
FAILED = "test_a_fraud_is_a_failed_row_with_its_reason"
SAME = "test_a_trick_changes_no_figure"
NO_LABEL = "test_models_defenses_and_metrics_see_no_label_and_no_file"
FLAGGED = "test_a_check_of_cells_flags_its_culprit_alone"
PROBED = "test_a_probe_finds_its_culprit_and_nothing_in_honest_models"

FRAUDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "reads the prepared corpus": (ISOLATION, FAILED, ("corpus-from-artefact", "corpus-from-cache", "other-artefacts")),
    "reads a file that no parameter names": (ISOLATION, NO_LABEL, ()),
    "a file that a parameter names changes": (
        ISOLATION,
        "test_a_file_that_a_parameter_names_can_be_read_and_counts_by_its_contents",
        (),
    ),
    "a stage's own function for labels": (ISOLATION, FAILED, ("corpus-from-cache",)),
    "a library of native code": (ISOLATION, FAILED, ("secret-by-library", "secret-by-process")),
    "writes to the store": (ISOLATION, FAILED, ("overwrites-weights",)),
    "ends the process": (ENDS, "test_a_plugin_that_ends_the_process_is_no_verdict", ()),
    "a job never ends": (
        "end_to_end/test_cluster.py",
        "test_a_job_that_takes_too_long_fails_and_the_others_are_done",
        (),
    ),
    'a "decisions" attack uses the model': (ISOLATION, FAILED, ("decides-by-gradient", "decides-by-model-in-memory")),
    'a "blind" attack loads stored weights': (ISOLATION, FAILED, ("blind-with-weights",)),
    "removes its budget": (ISOLATION, FAILED, ("harness-without-budget",)),
    "building an attack changes its budget": (
        "plan/test_planner.py",
        "test_an_attack_that_changes_its_budget_is_refused",
        (),
    ),
    "resets its pass counters": (AUDIT, FLAGGED, ("stronger-than-its-cost",)),
    "zero, opposite, or shrunk": (PROBES, PROBED, ("without_gradient", "derivative_error", "unexplained_change")),
    "smaller values have the wrong sign": (PROBES, PROBED, ("derivative_error of a part",)),
    "only white-box attacks cannot mislead": (AUDIT, FLAGGED, ("transfer-beats-white-box", "queries-beat-white-box")),
    "only query-based attack is within": (PROBES, PROBED, ("advantage_of_scores",)),
    "recognises files": (PROBES, PROBED, ("inaudible", "inaudible in length")),
    "calls itself uar": ("plan/test_selection.py", "test_a_suite_that_cannot_be_planned_is_refused_in_one_line", ()),
    "fails on every entry": (
        "scoring/test_ranks.py",
        "test_an_attack_that_failed_on_every_entry_takes_no_rank",
        (),
    ),
    "complex numbers": (
        "stages/test_harness.py",
        "test_a_broken_contract_is_reported_and_leaves_no_artefact",
        ("test-imaginary",),
    ),
    "edited after the run": (
        "results/test_folder.py",
        "test_an_edited_table_is_refused_and_one_without_digests_has_a_note",
        (),
    ),
    "no share of its clips": ("results/test_folder.py", "test_an_accuracy_is_a_share_of_the_clips", ()),
    "unpacks without limit": (SUBMISSION, "test_an_unusable_archive_is_refused_in_one_line", ()),
    "prints a verdict": (SUBMISSION, "test_code_of_a_submission_cannot_confirm_itself", ("prints", "patches", "ends")),
    "names files outside itself": (
        "store/test_names.py",
        "test_a_name_that_is_no_plain_relative_path_is_refused_in_one_line",
        (),
    ),
    "larger where jobs run": (ISOLATION, SAME, ("larger-in-workers",)),
    "another norm": (ISOLATION, SAME, ("norm-as-property",)),
    "true labels from frames": (ISOLATION, SAME, ("labels-from-frames",)),
    "labels of test clips while": (ISOLATION, NO_LABEL, ()),
    "patches of the stages": (ISOLATION, SAME, ("patches-the-judge",)),
    "logits where decisions": (
        ISOLATION,
        "test_logits_are_not_among_decisions_and_questions_are_counted",
        ("decides-by-logits",),
    ),
    "another user of the machine": (
        "execution/test_cluster_security.py",
        "test_only_this_process_may_give_work_to_the_local_workers",
        (),
    ),
    "a hundred questions": (
        ISOLATION,
        "test_logits_are_not_among_decisions_and_questions_are_counted",
        ("counts-nothing",),
    ),
}
"""Words of a row → the file, the test that holds it, and its cases."""

TWINS = {
    ISOLATION: ("honest", "decides"),
    PROBES: ("honest in toys.MODELS",),
    AUDIT: ("HONEST",),
}
"""File → its honest twins, which have no flag and no failed row."""


def rows() -> list[str]:
    """The first column of the tables of frauds that are caught or bounded."""
    text = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    tables = text.partition("## Caught")[2].partition("## Only confinement")[0]
    lines = [line for line in tables.splitlines() if line.startswith("| ")]
    return [line.split("|")[1].strip() for line in lines if not line.startswith(("| Attempt", "| ---"))]


def test_there_are_at_least_30_frauds_and_a_test_for_each_row_of_the_page() -> None:
    assert len(rows()) >= 30
    unknown = [row for row in rows() if sum(words in row.lower() for words in FRAUDS) != 1]
    assert unknown == []
    assert len(rows()) == len(FRAUDS)


@pytest.mark.parametrize("words", FRAUDS)
def test_the_test_of_a_fraud_exists_with_its_cases(words: str) -> None:
    name, test, cases = FRAUDS[words]
    text = (TESTS / name).read_text(encoding="utf-8")
    functions = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    assert test in functions
    assert [case for case in cases if not re.search(rf'"{re.escape(case)}"', text)] == []


@pytest.mark.parametrize("name", TWINS)
def test_honest_twins_are_tested_beside_the_frauds(name: str) -> None:
    text = (TESTS / name).read_text(encoding="utf-8")
    assert [twin for twin in TWINS[name] if twin not in text] == []
