// What OHIF asks for first, asked for while its scripts come: it asks for the study, then its series, then their metadata,
// each when it has read the answer before. An address that differs from OHIF's own is of no use: test_bridge.py looks.
window.atriumAsked = (() => {
  const STUDY = "limit=101&offset=0&fuzzymatching=true&includefield=00081030%2C00080060%2C00080090%2C00100030&StudyInstanceUID=";
  const SERIES = "includefield=00080021%2C00080031%2C0008103E%2C00200011";
  const MOST_SERIES = 4;
  // What OHIF hasn't asked for by then, in milliseconds, may be another by the time that it does.
  const LONGEST_KEPT = 10000;
  const answers = new Map();
  const ask = (url) => {
    const answer = fetch(url, { headers: { Accept: "application/dicom+json" } }).then((response) => {
      if (!response.ok) throw new Error(`asked ahead: ${response.status}`);
      return response.status === 204 ? [] : response.json();
    });
    // One who asks hears of it, and asks again.
    answer.catch(() => {});
    answers.set(url, answer);
    setTimeout(() => { if (answers.get(url) === answer) answers.delete(url); }, LONGEST_KEPT);
    return answer;
  };
  const asked = (url) => {
    const answer = answers.get(url);
    answers.delete(url);
    return answer;
  };
  asked.ahead = async (study) => {
    answers.clear();
    if (!/^[\d.]{1,64}$/.test(study)) return;
    const path = `/dicom-web/studies/${study}/series`;
    ask(`/dicom-web/studies?${STUDY}${study}`);
    const series = await ask(`${path}?${SERIES}`).catch(() => []);
    for (const one of series.slice(0, MOST_SERIES)) ask(`${path}/${one["0020000E"].Value[0]}/metadata`);
  };
  return asked;
})();
