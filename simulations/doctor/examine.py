"""The whole examination: this machine, and what a scenario needs of it."""

from collections.abc import Sequence

from rich.console import Console

from simulations.doctor.finding import Finding, tabulate
from simulations.doctor.gpus import gpu_findings, graphics
from simulations.doctor.memory import machine_findings, memory
from simulations.doctor.packages import package_findings
from simulations.doctor.places import place_findings


def examine(scenario: str | None, overrides: Sequence[str], console: Console) -> bool:
    """Print what there is, and what to set for the scenario; return whether nothing makes runs fail.

    Raises UserError for a scenario that is not there, and for keys and values that do not fit.
    """
    seen, packages = graphics(), package_findings()
    rows = [*machine_findings(memory()), *gpu_findings(seen), *packages, *place_findings()]
    console.print(tabulate(rows))
    if scenario and any(each.level == "wrong" for each in packages):
        console.print(tabulate([Finding("scenario", "not looked at before the packages are right", "note")]))
    elif scenario:
        # These import Flower, which may be what is missing.
        from simulations.doctor.scenario import needs
        from simulations.scenario import load_scenario

        run_config = load_scenario(scenario, overrides)
        with console.status("one client is trained"):
            needed = needs(run_config, seen.gpus)
        console.print(tabulate(needed))
        rows += needed
    wrong = [each.subject for each in rows if each.level == "wrong"]
    console.print(f"Wrong: {', '.join(wrong)}." if wrong else "Nothing is wrong.", soft_wrap=True)
    return not wrong
