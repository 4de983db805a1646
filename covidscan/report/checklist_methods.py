"""What a run can say of data, model and training: the fillers of the checklists' items on methods.

A filler takes `judge`'s result and the report's context, and gives text, or None where the run has nothing
to report. It says what was done, never what should have been.
"""

import re
from collections.abc import Mapping
from typing import Any

from tfds_mosmed.facts import load_facts
from tfds_mosmed.preprocessing.prepare import HIGHEST_HU, LOWEST_HU

Facts = Mapping[str, Any]

_OUTCOMES = {
    "binary": "Two labels: {}. Negative are the categories {}, every other one is positive",
    "severity": "Ordered grades: {}",
    "classes": "Labels without an order: {}",
}
_AUGMENTATIONS = {
    "flip": "left-right mirror image with probability {}",
    "scale": "size by up to {} of each axis",
    "shift": "shift by up to {} of each axis",
    "rotation": "in-plane rotation by up to {} degrees",
    "blur": "in-plane blur by up to {} pixels",
    "intensity": "shift by up to {} HU",
    "noise": "noise of up to {} HU",
    "mixup": "mixup with alpha {}",
}


def about_sources(context: Facts, fact: str) -> str | None:
    """Tell a fact of the data sets that train and are judged; None where it is not known of each of them."""
    families = dict.fromkeys(name.partition("/")[0] for name in (context["config"]["dataset"], context["dataset"]))
    sources = [load_facts(family) for family in families]
    if any(fact not in source for source in sources):
        return None
    return " ".join(source[fact] if len(sources) == 1 else f"{source['name']}: {source[fact]}" for source in sources)


def design(result: Facts, context: Facts) -> str | None:
    """Prospective or retrospective."""
    return about_sources(context, "design")


def data_sources(result: Facts, context: Facts) -> str | None:
    """The data sets that train and are judged."""
    trained, judged = context["config"]["dataset"], context["dataset"]
    which = f"Trained and judged on {judged}" if trained == judged else f"Trained on {trained}, judged on {judged}"
    known = about_sources(context, "data")
    return f"{which}; records {context['fingerprint']}.{f' {known}' if known else ''}"


def dates(result: Facts, context: Facts) -> str | None:
    """When participants were scanned."""
    return about_sources(context, "dates")


def setting(result: Facts, context: Facts) -> str | None:
    """Where participants were scanned."""
    return about_sources(context, "setting")


def inclusion(result: Facts, context: Facts) -> str:
    """What the run itself took in; clinical criteria are not known to it."""
    flow = context["flow"]
    return (
        f"The run took in every study of {context['dataset']} that could be read: {flow['found']} found, "
        f"{flow['skipped']} left out. No clinical criterion was applied."
    )


def deidentification(result: Facts, context: Facts) -> str | None:
    """How patients were made unknown."""
    return about_sources(context, "deidentification")


def missing_data(result: Facts, context: Facts) -> str:
    """What was done with studies that could not be used."""
    flow = context["flow"]
    return f"Nothing was imputed. {flow['skipped']} of {flow['found']} studies found were left out whole."


def subsets(result: Facts, context: Facts) -> str:
    """What part of each scan is used."""
    if context["dataset"].endswith("_full"):
        return "The whole field of view of each study."
    return "The box of both lungs with a margin, found by the program; where it finds none, the box of the body."


def preprocessing(result: Facts, context: Facts) -> str:
    """How a scan becomes a record."""
    grid = re.search(r"(\d+)x(\d+)x(\d+)", context["dataset"])
    size = f"{grid[0]} (rows x columns x slices)" if grid else f"that of the configuration {context['dataset']}"
    return (
        f"HU, oriented alike, clipped to {LOWEST_HU} to {HIGHEST_HU}, resized with anti-aliasing to one grid: {size}. "
        f"{scaling(result, context)} The same for every study."
    )


def scaling(result: Facts, context: Facts) -> str:
    """How HU become a network's input."""
    windows = ", ".join(f"level {level:g} width {width:g}" for level, width in context["config"]["windows"])
    return f"HU windows, each scaled to 0 to 1 as a channel of its own: {windows}."


def preparation(result: Facts, context: Facts) -> str:
    """Preprocessing and the checks of quality."""
    return f"{preprocessing(result, context)} {missing_data(result, context)} {context['leak_check']}"


def reference(result: Facts, context: Facts) -> str | None:
    """How labels were made."""
    return about_sources(context, "reference")


def annotation(result: Facts, context: Facts) -> str | None:
    """Who made the labels."""
    return about_sources(context, "annotation")


def outcome(result: Facts, context: Facts) -> str | None:
    """What is predicted, by which reference standard."""
    known = reference(result, context)
    if known is None:
        return None
    names, negatives = ", ".join(result["label_names"]), ", ".join(context["config"]["negative_categories"])
    return f"{_OUTCOMES[result['task']].format(names, negatives)}. {known}"


def predictor_choice(result: Facts, context: Facts) -> str:
    """What the network is given."""
    return "The voxels of the CT alone; no clinical variable, no acquisition data, no selection before training."


def predictors(result: Facts, context: Facts) -> str:
    """What the network's input is."""
    return f"HU of each voxel of the study. {scaling(result, context)}"


def predictor_assessors(result: Facts, context: Facts) -> str:
    """Nobody judges the input."""
    return "None: the input is voxels; nobody's judgement enters it."


def partitions(result: Facts, context: Facts) -> str:
    """How studies were put into parts."""
    config, external = context["config"], context["external"]
    rule = {
        "holdout": "70 % train, 10 % validation, 20 % test, stratified by category",
        "kfold": f"{config['num_folds']} folds stratified by category; a fold tests, the next one is for choices, the "
        f"others train{_tested(context)}",
        "covidnet3d": "the published 779/331 split of CovidNet3D (He et al., arXiv:2101.05442), one in eight of its "
        "training studies for choices",
    }[config["protocol"]]
    judged = f" All studies of {context['dataset']} were judged." if external else ""
    which = " of the first fold" if context["arrangement"] == "out_of_fold" else ""
    trained = f" Split of the training {context['trained_split_hash']}." if external else ""
    sizes = ", ".join(f"{part} {number}" for part, number in context["flow"]["parts"].items())
    return (
        f"--protocol={config['protocol']}: {rule}. What it leaves open is drawn by a hash of the study id with seed "
        f"{config['split_seed']}.{judged} Studies: {sizes}. Split{which} {context['split_hash']}.{trained}"
    )


def _tested(context: Facts) -> str:
    """Tell which fold tests; that of an ensemble's networks is not judged."""
    return {
        "single": f"; fold {context['config']['fold']}",
        "ensemble": "; a network for each choice of the fold",
        "out_of_fold": "; each fold tests once",
    }[context["arrangement"]]


def disjointness(result: Facts, context: Facts) -> str | None:
    """The level at which parts share nothing, and what was checked."""
    unit = about_sources(context, "unit")
    return f"The unit is {unit}. {context['leak_check']}" if unit else None


def model(result: Facts, context: Facts) -> str:
    """The network, its input and its output."""
    config = context["config"]
    settings = [
        f"{name} {'the default' if config[name] is None else config[name]}" for name in ("width", "dropout", "dtype")
    ]
    return (
        f"{config['model']} ({', '.join(settings)}), {context['num_parameters']:,} parameters; every layer is in "
        f"covidscan/models/{config['model']}.py. Input: a volume with {len(config['windows'])} HU windows as channels. "
        f"Output: the probability of {', '.join(result['label_names'])}. {ensembling(result, context)}"
    )


def software(result: Facts, context: Facts) -> str:
    """Versions."""
    return ", ".join(f"{name} {version}" for name, version in context["versions"].items())


def initialisation(result: Facts, context: Facts) -> str:
    """What the parameters were before training."""
    return f"Random, seed {context['config']['seed']}; no parameters of another training."


def training(result: Facts, context: Facts) -> str:
    """Optimiser, schedule, regularisation, augmentation."""
    config = context["config"]
    decay = f" with weight decay {config['weight_decay']}" if config["optimizer"] == "adamw" else ""
    patience = config["early_stopping"]
    stopping = f"after {patience} evaluations without a better validation AUROC" if patience else "none"
    augmented = [text.format(config[name]) for name, text in _AUGMENTATIONS.items() if config[name]]
    return (
        f"{config['optimizer']}{decay}, learning rate {config['learning_rate']} ({config['schedule']}, "
        f"warm-up {config['warmup']}), batch {config['batch_size']}, at most {config['epochs']} epochs, gradient "
        f"clipping {config['clip_norm'] or 'none'}, label smoothing {config['label_smoothing']}, "
        f"running mean of the parameters {config['ema_decay'] or 'none'}, weight of lesion masks, "
        f"where a study has one, {config['lesion_loss']}. "
        f"Cross-entropy. {class_imbalance(result, context)} Early stopping: "
        f"{stopping}. Augmentation: {'; '.join(augmented) or 'none'}."
    )


def class_imbalance(result: Facts, context: Facts) -> str:
    """What was done against rare labels."""
    how = {
        "sampling": "each label is drawn equally often in training",
        "loss": "the loss is weighed by inverse frequency of the label",
        "none": "nothing was done",
    }[context["config"]["class_balance"]]
    return f"Class imbalance: {how}."


def selection(result: Facts, context: Facts) -> str:
    """How the checkpoint was chosen."""
    choice = context["checkpoint_choice"]
    how = {
        "best": "the step with the highest AUROC on the validation studies, or the newest where none is defined",
        "latest": "the last of the training",
    }.get(choice, "a step named by hand")
    if context["arrangement"] == "single":
        return f"Checkpoint of step {context['checkpoint']:,}: {how}."
    return f"Checkpoint of each of the {context['num_members']} networks: {how}."


def ensembling(result: Facts, context: Facts) -> str:
    """How many networks answer together."""
    number = context["num_members"]
    return {
        "single": "No ensemble: one network.",
        "ensemble": f"{number} networks; their probabilities are averaged.",
        "out_of_fold": f"No ensemble: {number} networks, one a fold; the one that never saw a study judged it.",
    }[context["arrangement"]]


def model_building(result: Facts, context: Facts) -> str:
    """Model, training, choice and test in one."""
    fillers = (model, training, selection, partitions)
    return " ".join(filler(result, context) for filler in fillers)
