"""The teacher that scored best, and a note that says when:

    eval/best/teacher_checkpoint.pth   {"teacher": weights}
    eval/best/best.json                {"iteration": 300, "score": "teacher.bacc_20", "value": 0.91}

The note is removed before the weights change and written after them, so that where there is one it is theirs. A run
that is killed in between goes on from before that evaluation, makes it again, and exports the same teacher again.
The checkpoint of the same step stays as long as a newer one names it, see `Snapshot.kept`.
"""

import json
from pathlib import Path

from dinov2.distributed.outcomes import SharedError, on_main
from dinov2.utils.atomic import write_text

from .checkpoint import SaveError
from .early_stopping import EarlyStopping
from .export import export_teacher
from .ssl_meta_arch import SSLMetaArch

NOTE = "best.json"


def export_best(model: SSLMetaArch, early_stopping: EarlyStopping, folder: Path) -> None:
    """Export a teacher whose score has just become the best; all ranks take part.

    Raises:
        SaveError: on all ranks, if that cannot be done.
    """
    note = {
        "iteration": early_stopping.best_iteration,
        "score": early_stopping.score_name,
        "value": early_stopping.best_score,
    }
    path = folder / NOTE
    try:
        on_main(lambda: path.unlink(missing_ok=True))
        export_teacher(model, folder)
        on_main(lambda: write_text(path, json.dumps(note, indent=1) + "\n"))
    except (OSError, SharedError) as error:
        raise SaveError(f"the best teacher could not be noted in {path}: {error}") from error
