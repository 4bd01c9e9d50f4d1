"""What every column of every file means, once, for the page, the Markdown tables and the README."""

from __future__ import annotations

READING = (
    "A release matters for protection only as far as an attacker gains from it. Uplift is that gain: how much better "
    "an attacker does who may start from the release than one who must start without it, with the same target "
    "samples, the same budgets and the same attacks. An attacker is rational: where the release does not help, it "
    "starts anew, so a release that is worse than a fresh start protects no more than one that adds nothing. Leak is "
    "the uplift of a protected release over that of the unprotected one: 0 means that nothing is left, 1 that there "
    "is no protection.",
    "The baseline is the best that attackers reach without the release, under the same attacks: from a random start, "
    "or from public weights where the suite names them. Attacks are chosen for each seed and sample count by what "
    "they reach on validation images at the other seeds. SLC-AUC is the area between the learning curve of the "
    "release alone and that of the baseline; below 0 the release is worse than starting without it. Speed-up is what "
    "the baseline takes to 90% of what it reaches, over what the attacker takes.",
    "A verdict needs five seeds and all gates. Converged: the baseline gained under one point over the second half of "
    "its budget. Horizon: budgets go to at least 8 T90, the steps that the baseline takes to 90% of its plateau. "
    "Transfers: the unprotected release adds something. Inside: no winner has the lowest or highest of three or more "
    "rates. Complete: every attack that applies ran, and under a third of its runs diverged. A row holds if the upper "
    "ends are at most 0.1 for leak, 1.25 for speed-up and 2 points for source drop; it leaks if a lower end of the "
    "first two is above that; it is open where an interval spans a limit or seeds are few.",
)

_COSTS = {
    "steps": "optimizer steps",
    "samples": "images shown",
    "flops": "floating-point operations",
    "seconds": "seconds",
}
_TASK = "Source domain, which is kept, and target domain, which is to be protected."
_TRACK = (
    "What an attacker holds beside its target samples: 'target' the release, 'source' also a share of the source data, "
    "'unlabelled' the release but no labels, 'queries' a black box instead of the release, and a share of source."
)
_MASK = "The attacker on released zeros: 'dense' lets them grow, 'keep' puts them back after every step."


def _ends(name: str, meaning: str) -> dict[str, str]:
    return {
        name: meaning,
        f"{name}_low": f"Lower end of the interval of {name}; of the range of the seeds where they are under five.",
        f"{name}_high": f"Upper end of the interval of {name}; of the range of the seeds where they are under five.",
    }


LEADERBOARD: dict[str, str] = {
    "task": _TASK,
    "track": _TRACK,
    "defense": "Label of the defense, or of the control or baseline.",
    "mask": _MASK,
    "needs": "Data that the defense asks for beyond the weights.",
    "control": "A row to read the others against, whatever is chosen, such as no defense and plain magnitude pruning.",
    "baseline": "A row from which an attacker starts without the release.",
    "ranked": "Rows of the track 'target' whose attackers may change released zeros; baselines have no rank.",
    "rank": "1 leaks least.",
    "rank_low": "Best rank that the data allow.",
    "rank_high": "Worst rank that the data allow.",
    "verdict": "holds, leaks, open, or none where a gate failed or the source is lost; empty where none is due.",
    "reason": "Why the verdict is what it is, and what would decide an open one.",
    **_ends("leak", "Mean uplift over the mean uplift of the unprotected release: 0 nothing is left, 1 no protection."),
    **_ends(
        "uplift",
        "What a rational attacker gains from the release over the baseline, as a mean difference of accuracy over the "
        "log of the sample count.",
    ),
    **_ends(
        "slc",
        "SLC-AUC of the release alone: the area between its learning curve and the baseline's, over the natural log of "
        "the sample count. Below 0 the release is worse than starting without it.",
    ),
    **_ends(
        "compute_uplift",
        "What a rational attacker gains, as a mean difference of accuracy over the log of the budget from T90 / 8 to "
        "the horizon, averaged over sample counts.",
    ),
    "scratch_uplift": "Uplift over a random start alone; differs from uplift where the suite names public weights.",
    "oracle_leak": "Leak if attacks are chosen on test data, which no attacker can do: an upper bound of the choice.",
    "oracle_uplift": "Uplift if attacks are chosen on test data, which no attacker can do.",
    "own_leak": "Leak if each attacker chooses by a fifth of its own samples, where the suite asks for it.",
    "own_uplift": "Uplift if each attacker chooses by a fifth of its own samples, where the suite asks for it.",
    **_ends(
        "speedup",
        "Steps that the baseline takes to 90% of what it reaches, over those that the rational attacker takes: median "
        "over seeds at each sample count, geometric mean over counts. Above 1 the release saves the attacker work.",
    ),
    "speedup_bound": "< or > where runs ended before they got there, so that speedup is an upper or a lower bound.",
    "overhead": "Steps from the release alone to 90% of what the baseline reaches, over those of the baseline.",
    "overhead_bound": "< or > where runs ended before they got there, so that overhead is an upper or a lower bound.",
    **{
        f"speedup_{cost}_{q}": f"Speed-up in {words} to {q}% of what the baseline reaches."
        for cost, words in _COSTS.items()
        for q in (50, 80, 90, 95)
    },
    **_ends("drop", "Source accuracy of the clean model less that of the release, paired by seed and image."),
    "source_before": "Accuracy on source test data before protection.",
    "source_after": "Accuracy on source test data after protection.",
    "zero_shot": "Accuracy of the release on target test data, before any attack.",
    "sparsity": "Share of the released weights that is zero.",
    "frechet_before": "Frechet distance of images that the undefended model makes (300, 25 steps of DDIM) from the "
    "source's training images: in their first 32 principal components, in squares of pixels in [-1, 1], unless the "
    "suite's objective names a file of Inception's weights.",
    "frechet": "The same of images that the release makes: the larger, the less they look like the source.",
    "kid_before": "Kernel distance of the same images: the unbiased squared MMD under (x . y / d + 1)^3, in the same "
    "features; about 0 where both come from one distribution.",
    "kid": "The same of images that the release makes.",
    **{
        f"{kind}{when}_spread": f"Standard deviation of {kind}{when} between seeds of the noise that images are "
        "made of, a mean over releases."
        for kind in ("frechet", "kid")
        for when in ("_before", "")
    },
    "natural_before": "The error behind source_before, where scores are logarithms of errors: for denoisers the MSE.",
    "natural": "The error behind source_after.",
    "clipped": "Share of the attackers' runs whose score at the horizon is exactly 0 or 1, where scores stand for "
    "errors and end there.",
    "attack": "The attack on the release that the rational attacker picks at most sample counts at the horizon.",
    "attacks": "The same at each sample count, fewest samples first.",
    "takes_baseline": "Share of seeds and sample counts at which the rational attacker starts without the release.",
    "interval": (
        "What the ends are: an interval of that level, or the range of the seeds where they are under five; over "
        "attack seeds alone where the release is one file."
    ),
    "seeds": "Number of seeds.",
    "cells": "Number of finished cells, failed ones included, inapplicable ones not.",
    "failed": "Cells that ended in an error, a timeout or divergence.",
    "faced": "Number of attacks that the row faced.",
    "inapplicable": "Number of attacks that do not apply to the row.",
    "gate_converged": "The baseline gained under one point over the second half of its budget, at every sample count.",
    "gate_horizon": "Budgets go to at least 8 T90 at every sample count.",
    "gate_transfers": "The interval of the uplift of the unprotected release lies above 0.",
    "gate_inside": "No winner is at the edge of its family's rates, where three or more ran.",
    "gate_complete": "Every attack that applies ran, and under a third of its runs diverged.",
    "gates": "The gates that the row does not pass, why, and what would mend it; empty if it passes all.",
    "paper_attack": "The one attack that the suite names for the row, as a paper would evaluate with.",
    "paper_mask": "What that attack does with released zeros.",
    **_ends("paper_slc", "SLC-AUC under that one attack, against scratch under it."),
    "paper_overhead": "Overhead under that one attack, against scratch under it.",
    "search_uplift": "Uplift that the automatic search reaches.",
    "grid_uplift": "Uplift that the grid of attacks reaches.",
    "search_steps": "Optimizer steps of all trials of the search.",
    "grid_steps": "Optimizer steps of all attacks of the grid.",
    "protect_steps": "Optimizer steps of protecting.",
    "protect_seconds": "Seconds of protecting.",
    "protect_flops": "Floating-point operations of protecting.",
    "protect_seconds_ratio": "Seconds of protecting over those of pretraining.",
    "trials": "Trials in which the defense was tuned for the task, on data that its own access grants; empty if none.",
    "tuning_steps": "Optimizer steps of these trials, of protecting and of the attacks on them.",
    "tuning_flops": "Floating-point operations of these trials.",
    "note": "What else a reader must know about the row.",
}

RESULTS: dict[str, str] = {
    "protocol": "Name and version of the suite.",
    "task": _TASK,
    "arch": "Architecture.",
    "track": _TRACK,
    "defense": LEADERBOARD["defense"],
    "attack": "Label of the attack.",
    "mask": _MASK,
    "knowledge": "How the attacker chooses: 'others' by what the other seeds reach, 'own' by a fifth of its own "
    "samples.",
    "samples": "Number of target training samples that the attacker has.",
    "seed": "Seed of initialisation, subset and batch order.",
    "status": "ok, error, timeout, diverged, unusable where the defense lost the source, or inapplicable where the "
    "attack cannot face the defense.",
    "error": "First line of the reason of a failure, or why the attack is inapplicable.",
    "choice": "What an attack that chooses for itself says that it chose.",
    "test": "Score on target test data at the largest budget that the cell has a number for.",
    "val": "Score on the task's validation data there.",
    "own": "Score on the samples that the attacker put aside, where it chooses by them.",
    "t90": "Steps that the baseline takes to 90% of its plateau at this sample count.",
    "horizon": "The largest budget in units of T90.",
    "budget": "The largest budget in steps.",
    "steps": "The largest budget in steps that the cell has a number for.",
    "shown": "Images that the attack showed to the model, repeats counted.",
    "flops": "Floating-point operations of the attack.",
    "paid": "Steps of the run with everything that it tried before.",
    "source_before": LEADERBOARD["source_before"],
    "source_after": LEADERBOARD["source_after"],
    "zero_shot": LEADERBOARD["zero_shot"],
    "sparsity": LEADERBOARD["sparsity"],
    "pretrain_flops": "Floating-point operations of pretraining.",
    "protect_flops": LEADERBOARD["protect_flops"],
    "protect_steps": LEADERBOARD["protect_steps"],
    "images": "Target test images that were scored.",
    "originals": "How many of these are independent: image i shows original i modulo this number.",
    "source_images": "Source test images that were scored.",
    "clean": "Which source test images were right before protection, packed as bits in base64.",
    "kept": "Which source test images were right after protection, packed as bits in base64.",
    "attack_name": "Name under which the attack is registered.",
    "defense_name": "Name under which the defense is registered.",
    "params": "Hyper-parameters of the attack.",
    "data": "One digest over the digests of all data splits.",
    "version": "Version of ntbench.",
    "key": "Hash of everything that decides the cell.",
    "seconds": "Seconds of the attack, scoring excluded.",
    "cell_seconds": "Seconds of the whole cell.",
    "pretrain_seconds": "Seconds of pretraining.",
    "protect_seconds": LEADERBOARD["protect_seconds"],
    "peak_mb": "Peak memory of the worker in MiB.",
}
_ROW = {name: LEADERBOARD[name] for name in ("task", "track", "defense", "mask")}
TRAJECTORIES: dict[str, str] = {name: RESULTS[name] for name in ("key", "task", "track", "defense", "attack")} | {
    **{name: RESULTS[name] for name in ("mask", "knowledge", "samples", "seed")},
    "step": "The budget in steps; every other number is of a run of that budget.",
    **{name: RESULTS[name] for name in ("shown", "flops", "seconds")},
    "val": "Score on the task's validation data.",
    "test": "Score on target test data.",
    "own": RESULTS["own"],
    "correct": "Which target test images were right, packed as bits in base64.",
}
FAILURES = {
    name: RESULTS[name]
    for name in ("task", "track", "defense", "attack", "mask", "knowledge", "samples", "seed", "status", "error")
}
COVERAGE: dict[str, str] = _ROW | {
    "attack": RESULTS["attack"],
    "runs": "Cells that ran, failed ones included.",
    "failed": LEADERBOARD["failed"],
    "not_applicable": "Cells that are inapplicable, because the attack cannot face the defense on this task.",
    "reason": "Why they are.",
}
CURVES: dict[str, str] = _ROW | {
    "samples": RESULTS["samples"],
    "seed": RESULTS["seed"],
    "worst": "Test score at the horizon of the attacker who starts from the release alone.",
    "rational": "Test score at the horizon of the rational attacker, who may also take the baseline's runs.",
    "baseline": "Test score at the horizon of the attacker who starts without the release.",
    "paper": "Test score at the horizon under the one attack that the suite names for the row.",
    "paper_scratch": "Test score at the horizon from scratch under that one attack.",
}
BUDGETS: dict[str, str] = _ROW | {
    "budget": "Budget of a run in units of T90.",
    **_ends("uplift", "What a rational attacker gains with this budget, averaged over sample counts."),
    "accuracy": "Test score of the rational attacker with this budget.",
    "baseline": "Test score without the release with this budget.",
}
ATTACKS: dict[str, str] = _ROW | {
    "attack": RESULTS["attack"],
    "attack_mask": "Whether this attack puts released zeros back after every step ('keep') or not ('dense').",
    "slc": "SLC-AUC of this attack alone against the baseline at its best.",
    "accuracy": "Mean test accuracy under this attack over the log of the sample count.",
}
FACTORS: dict[str, str] = _ROW | {
    "factor": "What is held: optimizer, learning rate, schedule, batch size, or fine-tuning method.",
    "value": "What it is held at; the other factors are at their best.",
    "accuracy": "Mean test accuracy of the best such attack on the release alone, over the log of the sample count.",
    "leak": "Leak if the attacker has such attacks and the baseline's runs.",
}
PERMITTED: dict[str, str] = {name: LEADERBOARD[name] for name in ("task", "track", "defense", "mask", "verdict")} | {
    "family": "The defense with the hyper-parameters that the suite gives it, but for the drop that it permits.",
    "permitted": "Drop of source accuracy on validation data that the defense may cost, as a fraction.",
    **_ends("leak", LEADERBOARD["leak"]),
    **_ends("drop", LEADERBOARD["drop"]),
}
ABLATIONS: dict[str, str] = {name: text for name, text in PERMITTED.items() if name != "permitted"} | {
    "family": "The first row of the defense in the suite, with which the others are compared.",
    "changed": "The hyper-parameter that differs from that row, and its value; empty for the row itself.",
}
TASKS: dict[str, str] = {name: LEADERBOARD[name] for name in ("track", "defense", "mask")} | {
    "tasks": "Number of tasks.",
    "interval": LEADERBOARD["interval"],
    "seeds": "Fewest seeds on one of the tasks.",
    **_ends("leak", "Uplift summed over tasks, over that of the unprotected release."),
    **_ends("uplift", "Mean uplift over tasks."),
    **_ends("iqm", "Interquartile mean of uplift over tasks and seeds."),
}
PROFILES: dict[str, str] = {name: LEADERBOARD[name] for name in ("track", "defense", "mask")} | {
    "uplift": "A level of uplift.",
    "share": "Share of tasks and seeds at which the uplift is above that level.",
}
MAP: dict[str, str] = {"source": "Source domain.", "target": "Target domain."} | _ROW
MAP |= {name: LEADERBOARD[name] for name in ("slc", "leak")}
GLOSSARIES = {
    "leaderboard.csv": LEADERBOARD,
    "results.csv": RESULTS,
    "trajectories.parquet": TRAJECTORIES,
    "failures.csv": FAILURES,
    "coverage.csv": COVERAGE,
    "curves.csv": CURVES,
    "budgets.csv": BUDGETS,
    "attacks.csv": ATTACKS,
    "factors.csv": FACTORS,
    "permitted.csv": PERMITTED,
    "ablations.csv": ABLATIONS,
    "tasks.csv": TASKS,
    "profiles.csv": PROFILES,
    "map.csv": MAP,
}
"""The columns of every file by its name."""
