"""MLflow: a store of the run's own, unless MLFLOW_TRACKING_URI is in the environment."""

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from server.callbacks.tracker import Tracker
from server.rounds import RoundLoop
from server.run_schema import MLRUNS, RoundRecord, RunResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.tracking import MlflowClient

EXPERIMENT = "polyfed"
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # With MLflow's own, a run would wait four minutes for each request to a server that is not there.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""Settings of MLflow, where the environment does not say otherwise."""
TOKEN, ROUND = "polyfed.token", "server_round"


class MLflow(Tracker):
    """Writes an MLflow run into RUN/mlruns/mlflow.db, or to the server that MLFLOW_TRACKING_URI names.

    A resumed run goes on with the MLflow run that it began; rounds that are done again are there already.
    """

    package = "mlflow"

    def on_run_start(self, run: RoundLoop) -> None:
        """Open the run."""
        for setting, value in SETTINGS.items():
            os.environ.setdefault(setting, value)
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self.metric = Metric
        given, folder = os.environ.get("MLFLOW_TRACKING_URI"), run.folder.path / MLRUNS
        # With a database alone, MLflow would put them into whatever folder the process was started in.
        self.keeps_figures = not given or given.startswith(("http://", "https://"))
        if not given:
            folder.mkdir(exist_ok=True)
        self.client = MlflowClient(tracking_uri=given or f"sqlite:///{folder / 'mlflow.db'}")
        experiment = _experiment(self.client, None if given else (folder / "artifacts").as_uri())
        begun = self.client.search_runs(
            [experiment], filter_string=f"tags.`{TOKEN}` = '{run.folder.token()}'"
        )
        if begun:
            self.run_id = begun[0].info.run_id
            self.done = begun[0].data.metrics.get(ROUND, -1)
            self.client.update_run(self.run_id, status="RUNNING")
            return
        made = self.client.create_run(
            experiment, tags={TOKEN: run.folder.token()}, run_name=run.folder.path.name
        )
        self.run_id, self.done = made.info.run_id, -1
        params = [Param(key, str(value)) for key, value in run.folder.run_config.items() if value != ""]
        self.client.log_batch(self.run_id, params=params)

    def on_round_end(self, record: RoundRecord) -> None:
        """Log a round's numbers; their step is the round."""
        if record.server_round <= self.done:
            return
        numbers = {**record.scalars(), ROUND: record.server_round}
        now = int(time.time() * 1000)
        metrics = [self.metric(name, value, now, record.server_round) for name, value in numbers.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def on_figures(self, figures: Mapping[str, "Figure"], server_round: int) -> None:
        """Keep the figures among the run's artifacts."""
        for name, figure in figures.items() if self.keeps_figures else ():
            self.client.log_figure(self.run_id, figure, f"figures/{name}-round-{server_round}.svg")

    def on_run_end(self, result: RunResult) -> None:
        """Say how it ended."""
        for name, value in result.test_scalars.items():
            self.client.log_metric(self.run_id, name, value, step=result.server_round)
        self.client.set_tag(self.run_id, "polyfed.weights_sha256", result.weights_sha256)
        ending = {"failed": "FAILED", "unfinished": "KILLED"}.get(result.status, "FINISHED")
        self.client.set_terminated(self.run_id, ending)


def _experiment(client: "MlflowClient", artifacts: str | None) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    return found.experiment_id if found else client.create_experiment(EXPERIMENT, artifact_location=artifacts)
