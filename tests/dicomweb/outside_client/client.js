// Looks at a DICOMweb server as JavaScript's programs do: node client.js URL TOKEN PART10-FILE…
// Stores the files, finds and retrieves them, reads all that comes with dcmjs, and prints what it saw as JSON.
import { readFileSync } from "node:fs";
import XMLHttpRequest from "xhr2";
import dcmjs from "dcmjs";
import DICOMwebClient from "dicomweb-client";

// The library is made for browsers.
globalThis.XMLHttpRequest = XMLHttpRequest;
const { DicomMessage, DicomMetaDictionary } = dcmjs.data;
dcmjs.log.setLevel("error");
const [url, token, ...files] = process.argv.slice(2);
const client = new DICOMwebClient.api.DICOMwebClient({ url, headers: { Authorization: `Bearer ${token}` }, verbose: true });
const natural = (json) => DicomMetaDictionary.naturalizeDataset(json);
const read = (part10) => natural(DicomMessage.readFile(part10).dict);
const bytes = (buffer) => Buffer.from(buffer).toString("base64");
const PATIENT = { queryParams: { PatientID: "NODE" } };

const sent = files.map((file) => { const { buffer, byteOffset, byteLength } = readFileSync(file); return buffer.slice(byteOffset, byteOffset + byteLength); });
const stored = await client.storeInstances({ datasets: sent });
const [first] = sent.map(read);
const study = { studyInstanceUID: first.StudyInstanceUID };
const series = { ...study, seriesInstanceUID: first.SeriesInstanceUID };
const instance = { ...series, sopInstanceUID: first.SOPInstanceUID };

const studies = (await client.searchForStudies(PATIENT)).map(natural);
const found = (await client.searchForSeries(study)).map(natural);
const instances = (await client.searchForInstances(series)).map(natural);
const metadata = (await client.retrieveSeriesMetadata(series)).map(natural);
const [pixels] = metadata.map(({ PixelData }) => PixelData);
const [of] = (await client.retrieveInstanceMetadata(instance)).map(natural);
const whole = (await client.retrieveStudy(study)).map(read);
const retrieved = (await client.retrieveSeries(series)).map(read);
const one = read(await client.retrieveInstance(instance));
const frames = await client.retrieveInstanceFrames({ ...instance, frameNumbers: [2, 1] });
// A reference without a host is resolved as a browser resolves it.
const bulk = await client.retrieveBulkData({ BulkDataURI: new URL(pixels.BulkDataURI, url).href });
const rendered = await client.retrieveInstanceFramesRendered({ ...instance, frameNumbers: [1], mediaTypes: [{ mediaType: "image/png" }] });
const nothing = await client.searchForStudies({ queryParams: { PatientID: "NOBODY" } });
// What dcmjs writes is an instance, too.
const made = { ...one, SOPInstanceUID: `${one.SOPInstanceUID}.9`, _meta: undefined };
const message = new dcmjs.data.DicomDict(dcmjs.data.DicomMetaDictionary.denaturalizeDataset({
  MediaStorageSOPClassUID: one.SOPClassUID, MediaStorageSOPInstanceUID: made.SOPInstanceUID, TransferSyntaxUID: "1.2.840.10008.1.2.1",
  FileMetaInformationVersion: new Uint8Array([0, 1]).buffer, ImplementationClassUID: DicomMetaDictionary.uid(),
}));
message.dict = DicomMetaDictionary.denaturalizeDataset(made);
await client.storeInstances({ datasets: [message.write({ fragmentMultiframe: false })] });
const [again] = (await client.retrieveInstanceMetadata({ ...series, sopInstanceUID: made.SOPInstanceUID })).map(natural);

const names = (list) => list.map(({ PatientName }) => PatientName.map(({ Alphabetic }) => Alphabetic)).flat();
console.log(JSON.stringify({
  stored: typeof stored === "string" ? JSON.parse(stored) : stored,
  studies: studies.map(({ StudyInstanceUID, StudyDescription, ModalitiesInStudy }) => [StudyInstanceUID, StudyDescription, ModalitiesInStudy]),
  names: [names(studies), names(metadata), names(whole)],
  series: found.map(({ SeriesInstanceUID, Modality }) => [SeriesInstanceUID, Modality]),
  instances: instances.map(({ SOPInstanceUID, Rows, NumberOfFrames }) => [SOPInstanceUID, Rows, NumberOfFrames]),
  metadata: metadata.map(({ SOPInstanceUID, Rows, Columns, PixelSpacing }) => [SOPInstanceUID, Rows, Columns, PixelSpacing]),
  of: [of.SOPInstanceUID, of.RequestAttributesSequence[0].ScheduledProcedureStepID],
  whole: whole.map(({ SOPInstanceUID }) => SOPInstanceUID),
  retrieved: retrieved.map(({ SOPInstanceUID }) => SOPInstanceUID),
  pixels: bytes([one.PixelData].flat()[0]),
  frames: frames.map(bytes),
  bulk: [bulk].flat().map(bytes),
  png: Buffer.from([rendered].flat()[0]).subarray(1, 4).toString(),
  nothing: nothing.length,
  again: [again.SOPInstanceUID, again.Rows, again.PatientName.map(({ Alphabetic }) => Alphabetic)],
}));
