/** Small choices of one person in one browser. Never secrets, never anything the server must know. */
type Setting = 'theme' | 'locale' | 'project';

export function readSetting(name: Setting): string | null {
  try {
    return localStorage.getItem(`flotilla.${name}`);
  } catch {
    return null; // Storage is blocked: the default holds.
  }
}

export function writeSetting(name: Setting, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(`flotilla.${name}`);
    else localStorage.setItem(`flotilla.${name}`, value);
  } catch {
    // Storage is blocked: the choice lasts until the page is closed.
  }
}
