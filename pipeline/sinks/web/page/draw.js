// Draws people on a canvas, nearly as the program draws them in files: smaller people first, all outlines below all colours.
// Here the colour of the id is only the label's and the box's, since ids can be switched off.

const OUTLINE = "#181818";
const WIDTH_PER_HEIGHT = 1 / 75, MIN_WIDTH = 1.5, MAX_WIDTH = 9; // width of a limb's line per height of the person; limits in picture pixels
const LIFT = 0.07; // of the person's size, from the highest joint to the label: eyes are below the top of the head

/** view: {skeleton, ids, boxes, mirror}. scale, below: canvas pixels per frame pixel. */
export function drawFrame(context, bitmap, header, skeletons, view) {
  const { width, height } = context.canvas;
  const scale = width / header.wh[0];
  context.setTransform(view.mirror ? -1 : 1, 0, 0, 1, view.mirror ? width : 0, 0);
  context.drawImage(bitmap, 0, 0, width, height);
  const people = [...header.people].sort((a, b) => extent(a) - extent(b));
  context.lineCap = context.lineJoin = "round";
  if (view.boxes) for (const person of people) drawBox(context, person, scale);
  if (view.skeleton) for (const person of people) drawSkeleton(context, person, skeletons, scale);
  context.setTransform(1, 0, 0, 1, 0, 0); // text is never mirrored
  if (view.ids) drawLabels(context, people, scale, view.mirror ? width : null);
}

/** The colour of an id; the golden angle makes consecutive ids distinct. */
export function idColor(id) {
  return `hsl(${((id * 137.508) % 360).toFixed(1)} 85% 66%)`;
}

function extent(person) {
  return Math.max(person.bbox[2], person.bbox[3]);
}

function lineWidth(person, scale) {
  return Math.max(1.2, Math.min(MAX_WIDTH, Math.max(MIN_WIDTH, extent(person) * WIDTH_PER_HEIGHT)) * scale);
}

function drawSkeleton(context, person, skeletons, scale) {
  const points = person.keypoints, skeleton = skeletons[points.length];
  if (!skeleton) return;
  const width = lineWidth(person, scale), limbs = [];
  skeleton.edges.forEach(([a, b], edge) => {
    if (points[a][2] > 0 && points[b][2] > 0) limbs.push([points[a], points[b], skeleton.edge_colors[edge]]);
  });
  context.strokeStyle = OUTLINE;
  context.lineWidth = width + Math.max(2, width * 0.6);
  context.beginPath();
  for (const [a, b] of limbs) {
    context.moveTo(a[0] * scale, a[1] * scale);
    context.lineTo(b[0] * scale, b[1] * scale);
  }
  context.stroke();
  context.lineWidth = width;
  for (const [a, b, color] of limbs) {
    context.strokeStyle = color;
    context.beginPath();
    context.moveTo(a[0] * scale, a[1] * scale);
    context.lineTo(b[0] * scale, b[1] * scale);
    context.stroke();
  }
  points.forEach(([x, y, score], joint) => {
    if (score <= 0) return;
    const radius = width * (/(eye|ear)$/.test(skeleton.joints[joint]) ? 0.74 : 1.05);
    dot(context, x * scale, y * scale, radius + Math.max(1, width * 0.35), OUTLINE);
    dot(context, x * scale, y * scale, radius, `color-mix(in srgb, white 60%, ${skeleton.joint_colors[joint]})`);
  });
}

function dot(context, x, y, radius, color) {
  context.fillStyle = color;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function drawBox(context, person, scale) {
  const [x, y, w, h] = person.bbox.map((value) => value * scale);
  if (w <= 0 || h <= 0) return;
  context.lineWidth = 4;
  context.strokeStyle = "rgb(0 0 0 / .55)";
  context.strokeRect(x, y, w, h);
  context.lineWidth = 2;
  context.strokeStyle = person.id ? idColor(person.id) : "#e9edf3";
  context.strokeRect(x, y, w, h);
}

/** Draw the ids above the heads, inside the picture, none over another. mirroredAt: the canvas's width if mirrored, else null. */
function drawLabels(context, people, scale, mirroredAt) {
  const placed = [];
  const lowestFirst = people.filter((person) => person.id).sort((a, b) => b.bbox[1] - a.bbox[1]);
  for (const person of lowestFirst) placed.push(drawLabel(context, person, scale, mirroredAt, placed));
}

/** Draw one label; of those already placed none is covered. Returns its place: x, y, width, height. */
function drawLabel(context, person, scale, mirroredAt, placed) {
  const size = Math.round(Math.min(22, Math.max(12, extent(person) * scale * 0.09)));
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const text = String(person.id), pad = size * 0.4, height = size * 1.35;
  const width = context.measureText(text).width + 2 * pad;
  const center = (person.bbox[0] + person.bbox[2] / 2) * scale;
  const x = Math.min(context.canvas.width - width, Math.max(0, (mirroredAt === null ? center : mirroredAt - center) - width / 2));
  const lowest = Math.max(0, context.canvas.height - height);
  let y = freeY(x, Math.min(lowest, (person.bbox[1] - extent(person) * LIFT) * scale - height), width, height, placed, true);
  if (y < 0) y = Math.min(lowest, freeY(x, 0, width, height, placed, false)); // no place above
  context.fillStyle = idColor(person.id);
  context.beginPath();
  context.roundRect(x, y, width, height, height / 2);
  context.fill();
  context.fillStyle = "#0c0e12";
  context.fillText(text, x + pad, y + height / 2 + size * 0.06);
  return { x, y, width, height };
}

/** The first y from this one on, up or down, where a label covers no other. */
function freeY(x, y, width, height, placed, upwards) {
  for (const other of [...placed].sort((a, b) => (upwards ? b.y - a.y : a.y - b.y))) {
    const beside = x >= other.x + other.width || x + width <= other.x;
    if (!beside && y > other.y - height && y < other.y + other.height) y = upwards ? other.y - height - 1 : other.y + other.height + 1;
  }
  return y;
}
