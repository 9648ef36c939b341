"""The errors that reach a user: each message says what happened and what to do next."""

from __future__ import annotations


class Her2Error(Exception):
    """Base of every error that napari-her2 raises on purpose.

    The message is one plain sentence or two, ready to be shown to a pathologist:
    the command line prints it without a traceback, the docks show it as it is.
    """


class SlideError(Her2Error):
    """A slide cannot be opened, read, or lacks what the work needs."""


class ModelError(Her2Error):
    """A model cannot be found, loaded, trusted, or does not fit the slide."""


class ModelMisfit(ModelError):
    """A model was not made for the slide; the user may score it all the same."""


class EncoderMissing(ModelError):
    """The weights of a model's encoder are not part of it, and not at hand."""


class ModelNameTaken(ModelError):
    """Another model of the same name is installed; the user may replace it."""


class JobFailed(Her2Error):
    """Long work (scoring, embedding, training, writing) could not be finished."""


class CalibrationKept(JobFailed):
    """A calibration of that name is kept already; the user may replace it."""


class SlideChanged(JobFailed):
    """The file of a slide was changed while it was in use; nothing that was made of it is kept."""


class ClusterLost(JobFailed):
    """The cluster went away in the midst of a cohort; what is finished is kept."""


class JobStopped(JobFailed):
    """Long work ended because it was asked to; what it had done is kept, and it can be resumed."""


def file_problem(error: OSError) -> str:
    """Return what a person is told where the operating system refuses a file."""
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}: check the path, its permissions and the space on the disk."


class NotComputed(JobFailed):
    """What is asked for was not computed yet, or is kept no more: only a new scoring can answer."""
