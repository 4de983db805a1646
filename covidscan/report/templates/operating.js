/* Metrics at an operating point, looked up in the table that the page carries. */
"use strict";

const operating = {
  /* Look up the metrics where studies with at least this score are called positive. */
  at({ scores, columns }, threshold) {
    const found = scores.findIndex((score) => score >= threshold);
    const row = found < 0 ? scores.length : found;
    return Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, values[row]]));
  },

  /* Predictive values at a prevalence, by Bayes' rule; null where not defined. */
  predictiveValues({ sensitivity, specificity }, prevalence) {
    const share = (part, rest) => (part + rest > 0 ? part / (part + rest) : null);
    if (sensitivity === null || specificity === null) return { ppv: null, npv: null };
    return {
      ppv: share(sensitivity * prevalence, (1 - specificity) * (1 - prevalence)),
      npv: share(specificity * (1 - prevalence), (1 - sensitivity) * prevalence),
    };
  },

  /* Net benefit per study (Vickers & Elkin 2006), or null at a threshold of 1. */
  netBenefit({ tp, fp, fn, tn }, threshold) {
    return threshold < 1 ? (tp - (fp * threshold) / (1 - threshold)) / (tp + fp + fn + tn) : null;
  },
};
