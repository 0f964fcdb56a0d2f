"""What a line of the log, or a span, is about: by the id of the workflow it comes from."""

from __future__ import annotations

import pytest

from worker.about import About, of_core

RUN = "01a21a1b-6e55-753f-9d68-8847fb4049e6"


@pytest.mark.parametrize(
    ("workflow_id", "activity", "found"),
    [
        ("deploy:a:b/prod@vm", "start_release", About(RUN, "a:b/prod@vm", "deploy")),
        ("deploy:shop/prod", "record_end", About(RUN, "shop/prod", "record_end")),
        ("notify:a:b/prod:0190-ff", "notify", About("0190-ff", "a:b/prod", "notify")),
        ("redeploy:shop/prod-2026-11-26T23:00:00Z", "", About(RUN, "shop/prod", "")),
        ("", "", About(RUN)),
    ],
)
def test_the_id_names_the_instance(workflow_id: str, activity: str, found: About) -> None:
    fields = {"workflow_id": workflow_id, "run_id": RUN, "activity_type": activity}
    assert of_core(fields) == found
