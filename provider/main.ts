import { serve } from "./server";

serve();
