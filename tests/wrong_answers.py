"""Wrong answers that learners give, by notebook and task: code after the right answer, and a part of the hint."""

DATA = {
    "exact": [
        ("copies = images[images.sha256.duplicated()]", "is a table .pandas DataFrame.; a list is expected"),
        ("copies = images.sha256[images.sha256.duplicated()].tolist()", "is no name in the column"),
        ("copies = images.file[images.sha256.duplicated(keep=False)].tolist()", "the original too"),
        ("copies = images.file[images.sha256.duplicated(keep='last')].tolist()", "are copies: the first"),
        ("copies = []", "3 of the files that you leave still repeat"),
        ("copies = copies[:1] * 2", "stands in your list twice"),
        ("copies = [images]", "Python stops here"),
        ("del copies", "`copies` is not known; run the cells above"),
    ],
    "near": [
        ("most_bits = '10'", "is '10', text; a number is expected"),
        ("most_bits = True", "is True, True or False; a number is expected"),
        ("most_bits = 0", "With 0 bits you find 3 pairs"),
        ("most_bits = 58", "two different lesions"),
        ("conflicts = pairs[pairs.bits <= 10]", "carry the same label twice"),
        ("conflicts = pairs[pairs.first_label != pairs.second_label]", "two different pictures"),
        ("conflicts = pairs.head(0)", "You found no conflict"),
        ("conflicts = 1", "is 1, a number; a table"),
    ],
    "groups": [
        ("torn = 41", "41 is not the number"),
        ("torn = (naive.groupby(cases.group).nunique() == 1).sum()", "groups that are whole"),
        ("fair = naive", "groups on two sides"),
        ("fair = cases.group < '0'", "The test gets 0% of"),
        ("fair = cases.group", "needs one True or False"),
        ("fair = fair.to_numpy()", "is an array .numpy.; a column .pandas Series. is expected"),
    ],
    "largest": [
        ("to_beat = 88", "between 0 and 1"),
        ("to_beat = 0.33", "equally many photos"),
        ("to_beat = 0.05", "Another word"),
        ("balanced = 0.88", "gives each class the same say"),
        ("balanced = 0.3", "the three classes, then the mean"),
        ("gain = 0.01", "a number of photos, not a share"),
    ],
    "confounder": [
        ("auc_before = 1 - auc_before", "the direction is the other one"),
        ("auc_before = 0.5", "is not the AUC of the file sizes"),
        ("auc_before = best_accuracy(clinics)", "That is an accuracy"),
        ("quality = {'benign': 90, 'malignant': 75}", "What do the clinics do differently"),
        ("auc_after = 0.9", "not the AUC after your repair"),
    ],
    "corrections": [
        ("corrections = {'file': suspects}", "is a dictionary; a table .pandas DataFrame. is expected"),
        ("corrections = corrections.assign(file=['x', 'y'])", "not in the manifest"),
        ("corrections = corrections.assign(label='EXCLUDE')", "or is gone"),
        ("corrections = corrections.assign(label='Malignant')", "the spelling"),
        ("corrections = corrections.assign(label='malignant')", "is still there"),
        ("malignant_images = 62", "predict the counts again"),
    ],
}
MODELING = {
    "memory": [
        ("learn = naive", "Your split leaves .. of 100 patients on two sides"),
        ("learn = patient < 10", "10% of the photos are in training"),
        ("learn = patient[:70]", "`learn` holds 70 values, such as 0; 600 times True or False"),
    ],
    "rare": [
        ("def sensitivity(truth, called):\n    return truth[called].mean()", "gives the precision"),
        ("def sensitivity(truth, called):\n    return (truth == called).mean()", "gives the accuracy"),
        ("def sensitivity(truth, called):\n    return (truth & called)", "is an array .numpy.; a number"),
        ("missed = 4", "how many it found"),
    ],
    "fit": [
        ("curve.loc[0.1, 'validation'] = curve.training[0.1]", "was measured on training"),
        (
            "curve['training'] = [machine(c).fit(x[train], malignant[train]).score(x[train], malignant[train])"
            " for c in curve.index]",
            "`on_train` is the accuracy at C = 1e-05; the AUC",
        ),
    ],
    "fit-read": [
        ("chosen = 1.0", "there is better"),
        ("underfit = 0.1", "that is not stiff"),
        ("overfit = 0.3", "take one of the six"),
    ],
    "threshold": [
        ("threshold = 0.5", "86% of the malignant validation images"),
        ("threshold = 0.01", "A higher threshold"),
        ("threshold = highest_threshold(test, 0.95)", "chosen on the test"),
        ("alarms = 1 - alarms", "That is the specificity"),
    ],
    "interval": [
        ("draw_patients = draw_photos", "as little as those of single photos"),
        (
            "def draw_patients(rng):\n    return right[np.isin(who, rng.choice(30, 30))].mean()",
            "drawn twice count twice",
        ),
    ],
    "augment": [
        ("legitimate['arrow'] = ['mirror', 'gray', 'darker']", "arrow, .'mirror'.: could you still"),
        ("legitimate['arrow'] = ['gray']", "arrow: 1 more of the four"),
    ],
    "heart": [
        ("best_epoch = losses['plain'].loss.idxmin()", "falls to the end whatever happens"),
        ("best_epoch = losses['plain'].val_loss.argmin()", "the first epoch is number 1"),
        ("harm = losses['plain'].val_loss[30] - losses['plain'].loss[30]", "compare two epochs on validation"),
        ("harm = -harm", "is above 0"),
        ("overfits_least = 'plain'", "no merit by itself"),
    ],
}
DEPLOYMENT = {
    "resize": [
        ("def drift(way):\n    return (answers[way].score_malignant - exact).max()", "not the largest|is negative"),
        ("def drift(way):\n    return (answers[way].score_malignant - exact).abs().mean()", "is the mean difference"),
        ("safe = ['BOX']", "drifts by more than"),
    ],
    "hand": [
        ("body = {'instances': [{'b64': base64.b64encode(content).decode()}]}", "key 'image_bytes'"),
        ("body = {'instances': [{'image_bytes': {'b64': base64.b64encode(content)}}]}", "stand bytes"),
        ("body = {'instances': [{'image_bytes': {'b64': content.hex()}}]}", "something else|not base64"),
        ("body = {'inputs': []}", "only 'instances' is expected"),
    ],
    "damaged": [
        ("harmless = (scored.label != 'malignant').sum()", "whose image nobody could read"),
        ("again = ['half.jpg']", "are missing in `again`"),
    ],
    "parity": [
        ("same_scores = naive_check", r"A missing score \(NaN\)"),
        ("def same_scores(a, b):\n    return bool((np.abs(a - b) <= 1e-5).all())", "answered nothing"),
        ("def same_scores(a, b):\n    return np.abs(a - b)", "True or False"),
    ],
    "latency": [
        ("p50 = times.mean()", "`p50` is the mean"),
        ("p99 = np.percentile(times, 95)", "came 95% of the answers"),
        ("page = (times > 200).mean()", "a page waits for ten"),
        ("page = 10 * (times > 200).mean()", "slow answers twice"),
    ],
    "address": [
        ("def allowed(address):\n    return address.startswith('http')", "opens the page of the staff"),
        ("def allowed(address):\n    return '127.0.0.1' not in address", "reads a file of the server"),
        ("def allowed(address):\n    return address[:4] == 'http' and '127.' not in address", "by its name"),
        ("def allowed(address):\n    return False", "is refused and public"),
        ("def allowed(address):\n    return urlsplit(address).scheme", "True or False is expected"),
    ],
}
WRONG = {"01_data": DATA, "02_modeling": MODELING, "03_deployment": DEPLOYMENT}
# Answers that are right in another way: rounded as a person would type them, or found in another way.
ALSO_RIGHT = {
    "01_data": {
        "largest": ["to_beat, balanced, gain = 0.88, 0.33, 10"],
        "confounder": ["auc_before = round(auc_before, 2)"],
    },
    "02_modeling": {
        "threshold": ["on_test, alarms = round(on_test, 2), round(alarms, 2)"],
        "heart": ["harm = round(harm, 2)"],
    },
    "03_deployment": {"latency": ["p50, p99, page = round(p50), round(p99), round(page, 2)"]},
}
