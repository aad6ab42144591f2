// A film of a canvas, for a tab, which has no server to write files.

const KIND = ["video/mp4", "video/webm"].find((one) => window.MediaRecorder?.isTypeSupported(one));
export const canFilm = Boolean(KIND);

// What a button does that starts a film, and ends it when it is pressed again.
export function filmOf(canvas, button) {
  let film = null;
  return () => {
    if (film) return film.state === "recording" && film.stop();
    const parts = [];
    film = new MediaRecorder(canvas.captureStream(), { mimeType: KIND, videoBitsPerSecond: 4e6 });
    film.ondataavailable = ({ data }) => parts.push(data);
    film.onstop = () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(parts, { type: KIND }));
      link.download = `dream.${KIND.split("/")[1]}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      film = null;
      button.textContent = "Record";
    };
    film.start();
    button.textContent = "Stop recording";
  };
}
