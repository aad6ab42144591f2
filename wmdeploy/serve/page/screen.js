// Pictures on canvases, and how far two of them are apart.

export class Screen {
  constructor(canvas, size) {
    canvas.width = canvas.height = size;
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
  }

  // A picture file (ArrayBuffer), or red, green and blue of all pixels (Uint8Array).
  async draw(bytes) {
    if (bytes instanceof Uint8Array) {
      const made = this.context.createImageData(this.canvas.width, this.canvas.height);
      for (let at = 0, from = 0; at < made.data.length; at += 1) {
        made.data[at] = at % 4 === 3 ? 255 : bytes[from++];
      }
      return this.context.putImageData(made, 0, 0);
    }
    const picture = await createImageBitmap(new Blob([bytes]));
    this.context.drawImage(picture, 0, 0);
    picture.close();
  }

  pixels() {
    return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }
}

// PSNR in dB of two ImageData of one size, over red, green and blue; Infinity where they are equal.
export function psnr(one, other) {
  let sum = 0;
  for (let at = 0; at < one.data.length; at += 1) {
    if (at % 4 === 3) continue;
    const apart = one.data[at] - other.data[at];
    sum += apart * apart;
  }
  return sum ? 10 * Math.log10((255 * 255 * one.data.length * 0.75) / sum) : Infinity;
}

// |one - other| on a canvas.
export function drawDifference(screen, one, other) {
  const made = screen.context.createImageData(one.width, one.height);
  for (let at = 0; at < one.data.length; at += 1) {
    made.data[at] = at % 4 === 3 ? 255 : Math.abs(one.data[at] - other.data[at]);
  }
  screen.context.putImageData(made, 0, 0);
}

// Values over time, newest on the right.
export function drawHistory(canvas, values, lowest, highest) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  context.strokeStyle = getComputedStyle(canvas).color;
  context.lineWidth = 2;
  context.beginPath();
  values.forEach((value, index) => {
    const share = (Math.min(highest, Math.max(lowest, value)) - lowest) / (highest - lowest);
    const x = width - (values.length - 1 - index) * 2;
    const y = height - 2 - share * (height - 4);
    if (index) context.lineTo(x, y);
    else context.moveTo(x, y);
  });
  context.stroke();
}
