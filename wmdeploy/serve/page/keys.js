// Which action the held keys, buttons and sticks mean.

const PARTS = ["UP", "DOWN", "LEFT", "RIGHT", "FIRE"];
export const KEYS = {
  ArrowUp: "UP", KeyW: "UP", ArrowDown: "DOWN", KeyS: "DOWN", ArrowLeft: "LEFT", KeyA: "LEFT",
  ArrowRight: "RIGHT", KeyD: "RIGHT", Space: "FIRE",
};

// The parts of an action's meaning: "UPRIGHTFIRE" is UP, RIGHT and FIRE; "NOOP" has none.
export function partsOf(meaning) {
  return PARTS.filter((part) => meaning.includes(part));
}

// The parts that a game's actions have; without meanings, a button for each action.
export function buttonsOf(meanings, actions) {
  if (!meanings.length) return Array.from({ length: actions }, (_, action) => String(action));
  return PARTS.filter((part) => meanings.some((meaning) => partsOf(meaning).includes(part)));
}

// The action whose parts are all held, and of these the one with the most.
export function chooseAction(meanings, held) {
  if (!meanings.length) {
    const numbers = [...held].map(Number).filter(Number.isInteger);
    return numbers.length ? numbers[numbers.length - 1] : 0;
  }
  let best = 0, most = -1;
  meanings.forEach((meaning, action) => {
    const parts = partsOf(meaning);
    if (parts.length > most && parts.every((part) => held.has(part))) {
      best = action;
      most = parts.length;
    }
  });
  return best;
}

// What a key holds down, or null.
export function buttonOfKey(code, meanings, actions) {
  if (meanings.length) return KEYS[code] ?? null;
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(code);
  return digit && Number(digit[1]) < actions ? digit[1] : null;
}

// What a gamepad holds down: the left stick, the cross, and any of the first four buttons.
function buttonsOfGamepad(gamepad) {
  const held = new Set();
  const [x, y] = gamepad.axes;
  const pressed = (index) => Boolean(gamepad.buttons[index]?.pressed);
  if (x < -0.5 || pressed(14)) held.add("LEFT");
  if (x > 0.5 || pressed(15)) held.add("RIGHT");
  if (y < -0.5 || pressed(12)) held.add("UP");
  if (y > 0.5 || pressed(13)) held.add("DOWN");
  if ([0, 1, 2, 3].some(pressed)) held.add("FIRE");
  return held;
}

// Calls `changed(pressed, before)` with what a gamepad holds down, once there is one.
export function watchGamepad(changed) {
  let before = new Set();
  const read = () => {
    const gamepad = navigator.getGamepads?.().find((one) => one?.connected);
    const pressed = gamepad ? buttonsOfGamepad(gamepad) : new Set();
    if ([...pressed].join() !== [...before].join()) changed(pressed, before);
    before = pressed;
    requestAnimationFrame(read);
  };
  addEventListener("gamepadconnected", () => requestAnimationFrame(read), { once: true });
}
