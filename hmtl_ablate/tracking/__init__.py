"""MLflow: where every curve, result and picture is logged, and where the report reads them.

One experiment, `hmtl-ablate`; a study is a parent run, a trial a child run. Runs are found again by their tags, so a
study that is run again continues its runs. MLflow itself is imported when a store is opened, not before.

    tracking = open_tracking(None, Path("runs"))
    parent = tracking.study_run(StudyRecord(name="puzzling", profile="quick", ...), study_text)
    record = TrialRecord(parent=parent, trial_id=..., variant="SL", seed=0, config=..., ...)
    run_id = tracking.trial_run(record)
    tracking.log_epochs(run_id, history)
    tracking.finish_trial(run_id, replace(record, status="finished", metrics=...), {"confusion.png": path})
    tracking.trials()  # every trial of the store, as records

    records     what a run of MLflow holds, as typed records; the only module that knows the tags' names
    describing  a trial in words
    models      registered models
    address     MLflow addresses: parsed, shown without their password, probed
    opening     one process at a time makes a database's tables
    store       Tracking: reads and writes runs
    server      MLflow's own pages
"""

from hmtl_ablate.tracking.records import Registration, StudyRecord, TrialRecord
from hmtl_ablate.tracking.server import serve_ui
from hmtl_ablate.tracking.store import Tracking, open_tracking

__all__ = ["Registration", "StudyRecord", "Tracking", "TrialRecord", "open_tracking", "serve_ui"]
