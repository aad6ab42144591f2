// A dream as a link: where it began, and what was done. A backend gives the same frames for it.

// Runs of equal actions, each as action and length, in base 36: "0.12-3.5".
export function encodeActions(actions) {
  const runs = [];
  for (const action of actions) {
    const last = runs[runs.length - 1];
    if (last && last[0] === action) last[1] += 1;
    else runs.push([action, 1]);
  }
  return runs.map(([action, count]) => `${action.toString(36)}.${count.toString(36)}`).join("-");
}

export const MOST = 20_000; // frames of a link

export function decodeActions(text) {
  const actions = [];
  for (const run of text.split("-").filter(Boolean)) {
    const [action, count] = run.split(".").map((part) => parseInt(part, 36));
    if (!(action >= 0 && action < 256 && count > 0) || actions.length + count > MOST) return null;
    for (let n = 0; n < count; n += 1) actions.push(action);
  }
  return actions;
}
