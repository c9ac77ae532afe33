/** Our own few icons: 16 px grid, stroke only, always beside a text or under an aria-label. */
const PATHS = {
  overview: 'M2 8.5 8 3l6 5.500M4 7.500V13h8V7.500',
  devices: 'M3 3h10v7H3zM6 13h4M8 10v3',
  releases: 'm8 2 5.500 3v6L8 14l-5.500-3V5zM2.500 5 8 8l5.500-3M8 8v6',
  rollouts: 'M2 12h3V9h3V6h3V3h3',
  drift: 'M2 13c2 0 2.500-8 4.500-8S9 13 14 13M5 13c2 0 3-5 5-5s2 5 4 5',
  alerts: 'M8 2.500 14.500 13.500h-13zM8 6.500v3M8 11.500v.1',
  audit: 'M4 2h6l2.500 2.500V14H4zM6.500 7h3.500M6.500 10h3.500',
  settings:
    'M8 10a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM8 2v2M8 12v2M2 8h2M12 8h2M3.800 3.800l1.400 1.400M10.800 10.800l1.400 1.400M3.800 12.200l1.400-1.400M10.800 5.200l1.400-1.400',
  menu: 'M2 4h12M2 8h12M2 12h12',
  close: 'm4 4 8 8M12 4l-8 8',
  chevron: 'm4 6 4 4 4-4',
  next: 'm6 4 4 4-4 4',
  previous: 'm10 4-4 4 4 4',
  check: 'm3 8.500 3.500 3.500L13 5',
  copy: 'M5.500 5.500h8v8h-8zM10.500 5.500v-3h-8v8h3',
  sun: 'M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM8 1.500v1M8 13.500v1M1.500 8h1M13.500 8h1M3.500 3.500l.7.7M11.800 11.800l.7.7M3.500 12.500l.7-.7M11.800 4.200l.7-.7',
  moon: 'M13 9.500A5.500 5.500 0 1 1 6.500 3 4.500 4.500 0 0 0 13 9.500z',
  system: 'M2 3h12v8H2zM6 14h4M8 11v3',
  person:
    'M8 8a2.500 2.500 0 1 0 0-5 2.500 2.500 0 0 0 0 5zM3 14c0-2.800 2.200-4.500 5-4.500s5 1.700 5 4.500',
  up: 'm4 10 4-4 4 4',
  down: 'm4 6 4 4 4-4',
  pause: 'M5.500 3.500v9M10.500 3.500v9',
  play: 'm5 3 8 5-8 5z',
  plus: 'M8 3v10M3 8h10',
  download: 'M8 2v8M4.500 7 8 10.500 11.500 7M3 13.500h10',
  undo: 'M6 3 3 6l3 3M3 6h6.500a3.500 3.500 0 0 1 0 7H7',
  redo: 'm10 3 3 3-3 3M13 6H6.500a3.500 3.500 0 0 0 0 7H9',
  stop: 'M4 4h8v8H4z',
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 16 }: { readonly name: IconName; readonly size?: number }) {
  return (
    <svg
      className="icon"
      width={size}
      height={size}
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.5"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
      focusable="false"
    >
      <path d={PATHS[name]} />
    </svg>
  );
}
