// Three planes of a scan and the heat map over them, drawn by NiiVue.

const HEAT_COLOURS = {
  // inferno; the more of a text is seen, the less of the scan
  R: [0, 87, 188, 249, 252],
  G: [0, 16, 55, 142, 255],
  B: [4, 110, 84, 9, 164],
  A: [0, 128, 181, 222, 255],
  I: [0, 64, 128, 192, 255],
};
const NAMES = ["Sagittal", "Coronal", "Axial"];
const AXIS_OF_PLANE = { 0: 2, 1: 1, 2: 0 }; // NiiVue's numbers: axial, coronal, sagittal
const BARS_MM = [200, 100, 50, 20, 10, 5, 2, 1];

function stop(event) {
  event.preventDefault();
  event.stopImmediatePropagation();
}

export class Planes {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLElement} marks - lies over the canvas; takes the scale bars
   * @param {function(object)} moved - called with the place of the crosshair
   */
  constructor(canvas, marks, moved) {
    this.canvas = canvas;
    this.marks = marks;
    this.moved = moved;
    this.heat = null;
  }

  /** Raises an error where the browser cannot draw. */
  async start() {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("no WebGL2");
    const { Niivue, SLICE_TYPE, DRAG_MODE, SHOW_RENDER } = globalThis.niivue;
    const nv = new Niivue({
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      isOrientationTextVisible: true,
      multiplanarShowRender: SHOW_RENDER.NEVER,
      sliceType: SLICE_TYPE.MULTIPLANAR,
      dragMode: DRAG_MODE.pan,
      dragAndDropEnabled: false, // dropped files go through the server, which checks them
      viewModeHotKey: "",
      clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "",
      crosshairWidth: 0.8,
      crosshairWidthUnit: "mm",
      crosshairGap: 8,
      crosshairColor: [0.31, 0.77, 0.77, 0.8],
      fontColor: [1, 0.85, 0.4, 1],
      fontSizeScaling: 0.3,
      fontMinPx: 14,
      backColor: [0, 0, 0, 1],
      loadingText: "",
      logLevel: "error",
    });
    nv.addColormap("heat", HEAT_COLOURS);
    nv.onLocationChange = () => this._moved();
    const draw = nv.drawScene.bind(nv);
    nv.drawScene = (...values) => {
      const drawn = draw(...values);
      if (this.nv) this._drawMarks();
      return drawn;
    };
    this.canvas.addEventListener("wheel", (event) => this._wheel(event), { capture: true });
    // a double click would set NiiVue's own window
    this.canvas.addEventListener("dblclick", stop, { capture: true });
    await nv.attachToCanvas(this.canvas);
    nv.setCustomLayout([
      { sliceType: SLICE_TYPE.AXIAL, position: [0, 0, 0.6, 1] },
      { sliceType: SLICE_TYPE.CORONAL, position: [0.605, 0, 0.395, 0.5] },
      { sliceType: SLICE_TYPE.SAGITTAL, position: [0.605, 0.505, 0.395, 0.495] },
    ]);
    this.nv = nv;
  }

  get scan() {
    return this.nv.volumes[0];
  }

  async showScan(url, low, high) {
    this.heat = null;
    const volume = { url, name: "scan.nii", colormap: "gray", cal_min: low, cal_max: high };
    await this.nv.loadVolumes([volume]);
    this.reset();
  }

  /** Voxels along x, y and z. */
  get size() {
    return this.scan.dimsRAS.slice(1, 4);
  }

  reset() {
    this.nv.scene.pan2Dxyzmm = [0, 0, 0, 1];
    this.nv.scene.crosshairPos = [0.5, 0.5, 0.5];
    this._redraw();
  }

  setWindow(low, high) {
    this.scan.cal_min = low;
    this.scan.cal_max = high;
    this.nv.updateGLVolume();
  }

  /** Show slice `index` of the plane across an axis (0 sagittal, 1 coronal, 2 axial). */
  slide(axis, index) {
    this.nv.scene.crosshairPos[axis] = (index + 0.5) / this.size[axis];
    this._redraw();
  }

  goTo(millimetres) {
    this.nv.scene.crosshairPos = this.nv.mm2frac(millimetres);
    this._redraw();
  }

  async showHeat(url, limits, opacity) {
    this.hideHeat();
    const image = await globalThis.niivue.NVImage.loadFromUrl({
      url,
      name: "heat.nii",
      colormap: "heat",
      cal_min: limits.low,
      cal_max: limits.high,
      opacity,
    });
    this.heat = limits;
    this.nv.addVolume(image);
  }

  hideHeat() {
    while (this.nv.volumes.length > 1) this.nv.removeVolumeByIndex(1);
    this.heat = null;
  }

  setOpacity(value) {
    if (this.heat) this.nv.setOpacity(1, value);
  }

  /** Hide the lower part of the map's scale (0: nothing, 0.9: all but the top tenth). */
  setThreshold(share) {
    if (!this.heat) return;
    const { low, high } = this.heat;
    this.nv.volumes[1].cal_min = low + share * (high - low);
    this.nv.volumes[1].cal_max = high;
    this.nv.updateGLVolume();
  }

  /** One slice per notch in the plane below the pointer; with Ctrl NiiVue zooms. */
  _wheel(event) {
    if (event.ctrlKey || !this.nv?.volumes.length) return;
    stop(event);
    const box = this.canvas.getBoundingClientRect();
    const ratio = this.canvas.width / box.width;
    const place = [event.clientX - box.left, event.clientY - box.top].map((v) => v * ratio);
    const tile = this.nv.screenSlices[this.nv.tileIndex(...place)];
    if (!tile || !event.deltaY) return;
    const axis = AXIS_OF_PLANE[tile.axCorSag];
    const now = Math.floor(this.nv.scene.crosshairPos[axis] * this.size[axis]);
    const next = now - Math.sign(event.deltaY);
    this.slide(axis, Math.min(this.size[axis] - 1, Math.max(0, next)));
  }

  _redraw() {
    this.nv.drawScene();
    this.nv.createOnLocationChange();
  }

  _moved() {
    const fractions = this.nv.scene.crosshairPos;
    const size = this.size;
    const slices = size.map((n, axis) =>
      Math.min(n - 1, Math.max(0, Math.floor(fractions[axis] * n))),
    );
    const mm = [...this.nv.frac2mm(fractions)].slice(0, 3);
    const value = this._valueAt(0, mm);
    const heat = this.heat ? this._valueAt(1, mm) : null;
    this.moved({ slices, size, mm, value, heat });
  }

  _valueAt(number, mm) {
    const volume = this.nv.volumes[number];
    const voxel = volume.mm2vox(mm);
    const inside = voxel.every((v, axis) => v >= 0 && v < volume.dimsRAS[axis + 1]);
    return inside ? volume.getValue(...voxel) : null;
  }

  /** A name and a bar of so many mm in every plane. */
  _drawMarks() {
    const ratio = this.canvas.width / this.canvas.clientWidth || 1;
    const drawn = [];
    for (const tile of this.nv.volumes.length ? this.nv.screenSlices : []) {
      const [left, top, width, height] = tile.leftTopWidthHeight.map((v) => v / ratio);
      const perMillimetre = width / Math.abs(tile.fovMM[0]);
      const length = BARS_MM.find((mm) => mm * perMillimetre <= width / 3) ?? 1;
      const mark = document.createElement("div");
      mark.className = "mark";
      mark.style.left = `${left}px`;
      mark.style.top = `${top}px`;
      mark.style.width = `${width}px`;
      mark.style.height = `${height}px`;
      const name = document.createElement("span");
      name.className = "plane";
      name.textContent = NAMES[AXIS_OF_PLANE[tile.axCorSag]];
      const bar = document.createElement("span");
      bar.className = "bar";
      bar.style.width = `${length * perMillimetre}px`;
      bar.textContent = `${length} mm`;
      mark.append(name, bar);
      drawn.push(mark);
    }
    this.marks.replaceChildren(...drawn);
  }
}
