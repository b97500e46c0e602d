// What OHIF can't draw, the server draws: its picture of a frame (WADO-RS, rendered) takes the frame's place in OHIF, with
// OHIF's tools. What is read from its pixels are then the picture's greys and colours.
window.atriumLoader = (load) => {
  const { metaData } = window.cornerstone;
  const UNCOMPRESSED = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"];
  const instanceOf = (imageId) => metaData.get("instance", imageId) || {};

  const JPEG = "1.2.840.10008.1.2.4.50";
  // What OHIF draws wrongly or not at all without an error: segmented palettes (PS3.3 C.7.9.2), single bits, colours of more
  // than eight bits, chrominance at half the rate where no codec restores it, and JPEG of red, green and blue.
  const isBeyond = ({ PhotometricInterpretation: kind, BitsAllocated: bits, SamplesPerPixel: samples, RedPaletteColorLookupTableData: table, AvailableTransferSyntaxUID: syntax }) =>
    (kind === "PALETTE COLOR" && !table) || bits === 1 || (samples > 1 && bits > 8) || (/_42[02]$/.test(kind) && UNCOMPRESSED.includes(syntax)) || (kind === "RGB" && syntax === JPEG);

  // From here on OHIF takes the frame for what the picture is.
  const describe = (instance) => Object.assign(instance, {
    SamplesPerPixel: 3, PhotometricInterpretation: "RGB", PlanarConfiguration: 0, BitsAllocated: 8, BitsStored: 8, HighBit: 7, PixelRepresentation: 0,
    WindowCenter: undefined, WindowWidth: undefined, RescaleSlope: undefined, RescaleIntercept: undefined,
  });

  // Black would be taken for an image.
  const notice = () => {
    const canvas = new OffscreenCanvas(640, 480);
    const context = canvas.getContext("2d");
    [context.font, context.textAlign, context.fillStyle] = ["24px sans-serif", "center", "white"];
    context.fillText("This image can’t be drawn.", 320, 230);
    context.fillText("Its DICOM file can be downloaded.", 320, 266);
    return canvas;
  };

  const FRAMES = "multipart/related; type=application/octet-stream; transfer-syntax=*";
  const isHere = async (imageId) => (await fetch(imageId.slice("wadors:".length), { headers: { Accept: FRAMES } })).ok;

  const render = async (imageId) => {
    const began = performance.now();
    const response = await fetch(`${imageId.slice("wadors:".length)}/rendered`, { headers: { Accept: "image/png" } });
    if (!response.ok && response.status !== 406) throw new Error(`The picture of a frame can't be had: ${response.status}`);
    const picture = response.ok ? await createImageBitmap(await response.blob()) : notice();
    const instance = describe(instanceOf(imageId));
    // The server has made pixels square that aren't; OHIF does that itself.
    const [width, height] = [instance.Columns || picture.width, instance.Rows || picture.height];
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.drawImage(picture, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height);
    const pixels = new Uint8Array(width * height * 3);
    for (let from = 0, to = 0; from < data.length; from += 4) for (let n = 0; n < 3; n += 1) pixels[to++] = data[from + n];
    const plane = metaData.get("imagePlaneModule", imageId) || {};
    return {
      imageId, width, height, columns: width, rows: height, dataType: "Uint8Array", color: true, rgba: false, numberOfComponents: 3,
      columnPixelSpacing: plane.columnPixelSpacing, rowPixelSpacing: plane.rowPixelSpacing, calibration: metaData.get("calibrationModule", imageId) || {},
      slope: 1, intercept: 0, invert: false, minPixelValue: 0, maxPixelValue: 255, windowCenter: 128, windowWidth: 256, preScale: { enabled: false },
      sizeInBytes: pixels.byteLength, getPixelData: () => pixels, imageFrame: {}, loadTimeInMS: performance.now() - began,
      imageQualityStatus: window.cornerstone.Enums.ImageQualityStatus.FULL_RESOLUTION,
    };
  };

  // OHIF's loader takes the first letter of the VOI LUT function for its name, and what has one isn't drawn at all.
  const withFunction = (image) => {
    const [named] = [metaData.get("voiLutModule", image.imageId)?.voiLUTFunction].flat();
    image.voiLUTFunction = ["LINEAR", "SIGMOID", "LINEAR_EXACT"].find((one) => one === named);
    return image;
  };

  return (imageId, options) => {
    const instance = instanceOf(imageId);
    if (isBeyond(instance)) return { promise: render(imageId), cancelFn: undefined };
    const native = load(imageId, options);
    // What fails twice though its bytes are here can't be decoded. What isn't here is no reason for less than its values.
    const promise = native.promise.catch(() => load(imageId, options).promise).then(withFunction, async (error) => {
      if (!(await isHere(imageId))) throw error;
      return render(imageId);
    });
    return { ...native, promise };
  };
};

// Images of kinds that OHIF has never heard of, retired, private or newer than it, are stacks of frames like others; so is
// what its more particular handlers, which come first, leave over: overlays without images that they belong to.
window.atriumClaimImages = (extensions) => {
  // Slides are tiles of many resolutions.
  const SLIDES = "1.2.840.10008.5.1.4.1.1.77.1.6";
  const stack = extensions.getModuleEntry("@ohif/extension-default.sopClassHandlerModule.stack");
  if (stack.isForAll) return;
  stack.isForAll = true;
  const build = stack.getDisplaySetsFromSeries;
  // Pixels of no size, and planes that lie nowhere, would be drawn as nothing.
  const numbers = (value, count) => (Array.isArray(value) && value.length === count ? value.map(Number) : []);
  const isVector = (parts) => parts.length === 3 && parts.every(Number.isFinite) && parts.some(Boolean);
  const mend = (instance) => {
    for (const name of ["PixelSpacing", "ImagerPixelSpacing"]) {
      const sides = numbers(instance[name], 2);
      if (instance[name] && !(sides.length && sides.every((side) => side > 0))) delete instance[name];
    }
    const [position, turned] = [numbers(instance.ImagePositionPatient, 3), numbers(instance.ImageOrientationPatient, 6)];
    const isPlaced = position.length && position.every(Number.isFinite);
    const isTurned = isVector(turned.slice(0, 3)) && isVector(turned.slice(3));
    if ((instance.ImagePositionPatient && !isPlaced) || (instance.ImageOrientationPatient && !isTurned)) for (const name of ["ImagePositionPatient", "ImageOrientationPatient"]) delete instance[name];
  };
  stack.sopClassUids = { includes: (uid) => uid !== SLIDES };
  stack.getDisplaySetsFromSeries = (instances) => {
    if (!instances[0].Rows || !instances[0].Columns) return [];
    instances.forEach(mend);
    return build(instances);
  };
  // Films go by how they are coded, whatever they are films of; the server gives each as MPEG-4 (WADO-RS, rendered).
  const MPEG2 = /^1\.2\.840\.10008\.1\.2\.4\.10[01](\.1)?$/;
  const MPEG4 = /^1\.2\.840\.10008\.1\.2\.4\.10[2-8](\.1)?$/;
  const film = extensions.getModuleEntry("@ohif/extension-dicom-video.sopClassHandlerModule.dicom-video");
  if (!film) return;
  const play = film.getDisplaySetsFromSeries;
  film.sopClassUids = { includes: () => true };
  film.getDisplaySetsFromSeries = (instances) => {
    const films = instances.filter(({ AvailableTransferSyntaxUID: syntax }) => MPEG2.test(syntax) || MPEG4.test(syntax));
    for (const instance of films) instance.AvailableTransferSyntaxUID = "1.2.840.10008.1.2.4.102";
    return films.length ? play(films) : [];
  };
};
