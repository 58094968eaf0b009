/** The sign of the house. */
export function Mark() {
  return (
    <svg className="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" />
      <path d="M8 9l8 15 8-15" />
      <circle cx="16" cy="9" r="2.2" />
    </svg>
  );
}
