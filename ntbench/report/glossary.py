"""What every column means, once, for the HTML page, the Markdown tables and the README."""

from __future__ import annotations

RULES = {
    "last": "the attacker takes the last model of every attack, and picks the attack, per sample count, by accuracy on "
    "its own validation data (feasible)",
    "val": "the attacker picks both the step of every attack, among those that are scored, and the attack, per sample "
    "count, by accuracy on its own validation data (feasible)",
    "oracle": "both the step and the attack, per sample count, are picked by test accuracy (not feasible: optimistic "
    "for the attacker)",
}

READING = (
    "A defense matters only as far as an attacker is worse off with its weights than with none. So every number "
    "compares the attacker who fine-tunes the protected weights with one who trains the same architecture from "
    "scratch, with the same samples, the same budget and the same choice of attacks. The paper setting is the one "
    "attack that the paper of the defense evaluates with; the grid is the best of all attacks that an expert lists, "
    "auto one attack that searches for itself, and the worst case the strongest of them all. The distance between "
    "paper setting and worst case is how much the paper setting flatters."
)

_COSTS = {
    "steps": "Optimizer steps",
    "samples": "Training samples seen",
    "flops": "Floating-point operations",
    "seconds": "Wall-clock seconds",
}
_OVERHEADS = {
    f"overhead_{cost}_{q}": f"{words} from the protected weights to reach {q} % of tuned scratch's accuracy, "
    "over the same from scratch, for the cheapest attack, at the largest sample ratio, median over seeds; above 1 the "
    "attacker loses, and '>' marks a lower bound: the budget ended first."
    for cost, words in _COSTS.items()
    for q in (50, 80, 90, 95)
}

LEADERBOARD: dict[str, str] = {
    "rank": "1 is the strongest defense: the lowest worst-case SLC-AUC. Only ranked rows have one.",
    "rank_low": "Best rank within 95 % of the bootstrap resamples of the seeds.",
    "rank_high": "Worst rank within 95 % of the bootstrap resamples of the seeds.",
    "task": "Source domain (kept) and target domain (protected).",
    "defense": "Label of the defense.",
    "mask": "The attacker on released zeros: 'dense' lets them grow, 'keep' puts them back after every step.",
    "needs": "Data that the defense asks for beyond the weights. In short tables S is source labels, T target labels, "
    "and t target images without labels.",
    "selection": "How the attacker chooses: 'last' takes the last step of every attack and chooses among attacks on "
    "validation data, 'val' chooses the step too, 'oracle' chooses both on test data, which is optimistic.",
    "ranked": "A defense is ranked by its weaker row: nobody can force an attacker to keep zeros.",
    "control": "A control, in every table: no defense, training from scratch, plain magnitude pruning.",
    "holds": "Worst-case SLC-AUC interval below 0, overhead_steps_90 at least 1, and drop at most 0.02.",
    "thin": "Fewer than two thirds of the attacks that apply went well on every seed at some sample ratio. What "
    "does not apply does not count; an attack that diverges has failed.",
    "seeds": "Number of seeds.",
    "cells": "Number of finished cells, failed ones included, inapplicable ones not.",
    "failed": "Cells that ended in an error, a timeout or divergence; they never enter a number.",
    "paper_attack": "The one attack that the paper of the defense evaluates with, at its last step under every rule.",
    "paper_mask": "What the paper's attacker does with released zeros.",
    "paper_slc": "SLC-AUC under the paper's attack, against scratch under that same attack.",
    "paper_slc_low": "Lower end of its 95 % bootstrap interval over seeds.",
    "paper_slc_high": "Upper end of its 95 % bootstrap interval over seeds.",
    "paper_overhead": "Overhead in steps at 90 % under the paper's attack, against scratch under that same attack.",
    "paper_overhead_censored": "Share of the seeds that never got there; from one half on, the value is a lower bound.",
    "grid_attack": "The attack that the grid's best picks at most sample ratios.",
    "grid_slc": "SLC-AUC of the best attack other than 'auto' at each sample ratio, against scratch's best over the "
    "same attacks.",
    "grid_slc_low": "Lower end of its 95 % bootstrap interval over seeds.",
    "grid_slc_high": "Upper end of its 95 % bootstrap interval over seeds.",
    "grid_steps": "Optimizer steps of all attacks of the grid on this row, summed over sample ratios, mean over seeds: "
    "what trying them all costs.",
    "auto_choice": "What the attack 'auto', which searches for itself on validation data, chose most often.",
    "auto_slc": "SLC-AUC of the attack 'auto', against scratch under 'auto'.",
    "auto_slc_low": "Lower end of its 95 % bootstrap interval over seeds.",
    "auto_slc_high": "Upper end of its 95 % bootstrap interval over seeds.",
    "auto_steps": "Optimizer steps of the search of 'auto', summed over sample ratios, mean over seeds.",
    "auto_gap": "Mean accuracy over the log of the sample count that the attacker has under 'auto', minus that under "
    "the best of the grid. Negative: the search missed something that the grid has.",
    "auto_gap_low": "Lower end of its 95 % bootstrap interval over seeds.",
    "auto_gap_high": "Upper end of its 95 % bootstrap interval over seeds.",
    "worst_attack": "The attack that the worst case picks at most sample ratios.",
    "worst_attacks": "The attack that the worst case picks at each sample ratio, smallest ratio first.",
    "worst_steps": "Optimizer steps of the attacks that the worst case picks, summed over sample ratios, mean over "
    "seeds; finding them is not counted.",
    "slc": "SLC-AUC of the worst case: the area between its sample-wise learning curve and that of tuned scratch, over "
    "the natural log of the sample count. Negative: the attacker is worse off than with no weights at all.",
    "slc_low": "Lower end of its 95 % bootstrap interval over seeds.",
    "slc_high": "Upper end of its 95 % bootstrap interval over seeds.",
    "slc_norm": "slc over the log range of the sample counts: the mean difference in accuracy.",
    **_OVERHEADS,
    **{f"{name}_censored": f"Share of the seeds that never got there, for {name}." for name in _OVERHEADS},
    **{f"{name}_restricted": f"Mean of {name} with such seeds counted at their budget." for name in _OVERHEADS},
    "source_before": "Accuracy on source test data before protection.",
    "source_after": "Accuracy on source test data after protection.",
    "drop": "Intactness: source_before minus source_after, mean over seeds.",
    "drop_low": "Lower end of its 95 % bootstrap interval over seeds.",
    "drop_high": "Upper end of its 95 % bootstrap interval over seeds.",
    "zero_shot": "Accuracy of the protected weights on target test data, before any attack.",
    "sparsity": "Share of the released weights that is zero.",
    "protect_seconds_ratio": "Wall-clock time of protecting over that of pretraining.",
    "protect_flops_ratio": "Floating-point operations of protecting over those of pretraining.",
    "note": "Why a row is not ranked, or what is missing.",
}

RESULTS: dict[str, str] = {
    "protocol": "Name and version of the suite.",
    "task": LEADERBOARD["task"],
    "arch": "Architecture.",
    "defense": LEADERBOARD["defense"],
    "attack": "Label of the attack.",
    "mask": LEADERBOARD["mask"],
    "ratio": "Share of the target training split that the attacker has.",
    "samples": "Number of target training samples that the attacker has.",
    "seed": "Seed of initialisation, subset and batch order.",
    "status": "ok, error, timeout, diverged, or inapplicable where the attack cannot face the defense on this task.",
    "error": "First line of the reason of a failure, or why the attack is inapplicable.",
    "choice": "What an attack that chooses for itself says that it chose.",
    "test_accuracy": "Accuracy on target test data at the end of the attack.",
    "val_accuracy": "Accuracy on the attacker's validation data at the end of the attack.",
    "steps": "Optimizer steps of the attack.",
    "train_samples": "Training samples that the attack saw, repeats counted.",
    "flops": "Floating-point operations of the attack.",
    "source_before": LEADERBOARD["source_before"],
    "source_after": LEADERBOARD["source_after"],
    "zero_shot": LEADERBOARD["zero_shot"],
    "sparsity": LEADERBOARD["sparsity"],
    "pretrain_flops": "Floating-point operations of pretraining.",
    "protect_flops": "Floating-point operations of protecting.",
    "data": "One digest over the digests of all data splits.",
    "version": "Version of ntbench.",
    "key": "Hash of everything that decides the cell.",
    "seconds": "Wall-clock seconds of the attack, scoring excluded.",
    "cell_seconds": "Wall-clock seconds of the whole cell.",
    "pretrain_seconds": "Wall-clock seconds of pretraining.",
    "protect_seconds": "Wall-clock seconds of protecting.",
    "peak_mb": "Peak memory of the worker in MiB.",
}

COVERAGE: dict[str, str] = {
    "task": LEADERBOARD["task"],
    "defense": LEADERBOARD["defense"],
    "mask": LEADERBOARD["mask"],
    "attack": RESULTS["attack"],
    "runs": "Cells that ran, failed ones included.",
    "failed": LEADERBOARD["failed"],
    "not_applicable": "Cells that are inapplicable, because the attack cannot face the defense on this task.",
    "reason": "Why they are.",
}
