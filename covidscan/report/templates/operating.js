/* What an operating point gives: pure functions of counts, nothing of the page. */
"use strict";

const operating = {
  /* Count the answers at a threshold: yes from it upwards. `yes` is a string of 0 and 1, a study each. */
  counts(yes, score, threshold) {
    const found = { tp: 0, fp: 0, fn: 0, tn: 0 };
    for (let i = 0; i < score.length; i++) {
      if (yes[i] === "1") found[score[i] >= threshold ? "tp" : "fn"]++;
      else found[score[i] >= threshold ? "fp" : "tn"]++;
    }
    return found;
  },

  /* A share, or null where there is nothing to share. */
  share(part, rest) {
    return part + rest > 0 ? part / (part + rest) : null;
  },

  /* Wilson's 95 % interval of k of n (JASA 1927), or null. */
  wilson(k, n) {
    if (!n) return null;
    const z = 1.959963984540054, centre = (k + z * z / 2) / (n + z * z);
    const reach = (z / (n + z * z)) * Math.sqrt((k * (n - k)) / n + z * z / 4);
    return [Math.max(0, centre - reach), Math.min(1, centre + reach)];
  },

  /* Sensitivity, specificity and their intervals; predictive values at a prevalence by Bayes' rule. */
  figures({ tp, fp, fn, tn }, prevalence) {
    const sensitivity = operating.share(tp, fn), specificity = operating.share(tn, fp);
    const defined = sensitivity !== null && specificity !== null;
    return {
      sensitivity,
      specificity,
      ppv: defined ? operating.share(sensitivity * prevalence, (1 - specificity) * (1 - prevalence)) : null,
      npv: defined ? operating.share(specificity * (1 - prevalence), (1 - sensitivity) * prevalence) : null,
      "sensitivity-interval": operating.wilson(tp, tp + fn),
      "specificity-interval": operating.wilson(tn, tn + fp),
    };
  },

  /* Net benefit per study (Vickers & Elkin 2006), or null at a threshold of 1. */
  netBenefit({ tp, fp, fn, tn }, threshold) {
    return threshold < 1 ? (tp - (fp * threshold) / (1 - threshold)) / (tp + fp + fn + tn) : null;
  },
};
